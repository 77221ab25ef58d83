"""Object stores (S3, local files, AI services), and what this package keeps in them: JSON documents, dead letters."""
