"""Where data lie: S3, this machine, OpenAI, Cohere; plain or compressed, each store by its kind of URI."""
