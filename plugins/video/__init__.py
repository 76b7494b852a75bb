"""Video: how ffmpeg is told what to do, fed, and kept out of the way. A library of the encoder pool and the viewer."""
