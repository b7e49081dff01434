"""Sources: folders, a Hub of our own with the real client, wheels through the real pip."""
