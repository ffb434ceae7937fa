"""The endpoints, one file a group. Each is thin: it checks, and hands over to what knows how."""
