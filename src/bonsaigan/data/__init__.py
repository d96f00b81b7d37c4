"""Pictures: where they come from, what is wrong with them, and how they become one array."""
