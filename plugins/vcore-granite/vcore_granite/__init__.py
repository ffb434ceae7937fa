"""IBM Granite, for vcore."""
