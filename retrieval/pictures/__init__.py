"""What a person sees of a result: thumbnails, contact sheets, explanations."""
