"""The plugins that come with Stepreel, and `plugins.recorder`, the library of those who step environments."""
