"""The local API: OpenAI's chat completions, and the control calls of the command line."""
