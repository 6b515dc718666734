"""The built-in corpus: real encoded videos of an animated figure, with exact annotations; reading them is `video.py`.

A video goes through the files in this order: `config` (the knobs), `script` (who acts when, in which shots), `actions`
and `motion` (poses over time), `figure` (pose to capsules), `scenes` and `paint` (pixels), `render` (frames), `corpus`
(files on disk).
"""

from uptal.synthetic.actions import ACTIONS
from uptal.synthetic.config import CorpusConfig, Kind, unique_scenes, web_like
from uptal.synthetic.corpus import synthesize
from uptal.synthetic.render import render_video
from uptal.synthetic.script import annotate

__all__ = ["ACTIONS", "CorpusConfig", "Kind", "annotate", "render_video", "synthesize", "unique_scenes", "web_like"]
