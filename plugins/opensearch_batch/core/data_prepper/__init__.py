"""Front end for Data Prepper (OpenSearch Ingestion) files: reads, lints, compiles and converts them."""
