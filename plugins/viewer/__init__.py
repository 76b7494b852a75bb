"""The viewer: a web page for people who look at agents."""
