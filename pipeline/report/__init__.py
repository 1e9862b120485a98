"""Pages a person looks at: one self-contained HTML file of a dataset, an episode, an ingest or a training run."""
