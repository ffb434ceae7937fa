"""Policies that adapt to traffic, for vcore: the newest request first under overload, and ARC."""
