"""From records to a report: tables, plots and Markdown, all pure functions of the records."""
