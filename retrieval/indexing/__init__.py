"""From files to an index: cutting, reading and encoding them, whatever happens meanwhile."""
