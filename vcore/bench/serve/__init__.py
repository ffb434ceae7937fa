"""``vcore bench serve``: load on a server, and what its users would see. Open loop: requests come when they are due."""
