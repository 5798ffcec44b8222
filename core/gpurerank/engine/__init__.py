"""One engine per model: calls from every thread and task become batches of one model."""
