"""The verbs of the command line, one module each; `hcmi.cli` imports them when they are called."""
