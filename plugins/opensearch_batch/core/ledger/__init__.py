"""The record ledger and the prediction store: what was done for each record, and each answer that was paid for."""
