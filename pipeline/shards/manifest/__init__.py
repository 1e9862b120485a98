"""What a dataset says of itself: manifest.json, and the table with a row for each episode."""
