"""One module a chart: data in, plotly figure out."""
