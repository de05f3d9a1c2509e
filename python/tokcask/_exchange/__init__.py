"""Tokens in the formats of other programs: export_tokens() and import_tokens()."""
