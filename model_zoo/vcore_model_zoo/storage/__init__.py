"""Files that several processes may make at once: locks, checksums, and folders that appear whole or not at all."""
