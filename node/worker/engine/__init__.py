"""From token ids to token ids: what runs when, the model, and how a token is drawn."""
