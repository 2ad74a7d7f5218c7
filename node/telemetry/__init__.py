"""What a node tells its owner about itself: never what anybody asked or answered."""
