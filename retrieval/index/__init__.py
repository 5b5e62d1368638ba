"""The index of videos: where embeddings and files are kept, and how they are searched."""
