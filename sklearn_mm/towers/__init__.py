"""Towers: from texts or pictures to vectors, as the estimators that train them drive them.

`TrainableEncoder` is what an encoder of one's own inherits from.
"""

from sklearn_mm.towers._batch import join_batches as join_batches
from sklearn_mm.towers._batch import take_rows as take_rows
from sklearn_mm.towers._digests import row_digests as row_digests
from sklearn_mm.towers._embed import embed as embed
from sklearn_mm.towers._embed import n_rows_of as n_rows_of
from sklearn_mm.towers._moments import RunningMoments as RunningMoments
from sklearn_mm.towers._moments import column_statistics as column_statistics
from sklearn_mm.towers._moments import discretise as discretise
from sklearn_mm.towers._moments import inverse as inverse
from sklearn_mm.towers._moments import standardise as standardise
from sklearn_mm.towers._moments import ternary_limits as ternary_limits
from sklearn_mm.towers._protocol import TowerEncoder
from sklearn_mm.towers._protocol import is_trainable as is_trainable
from sklearn_mm.towers._span import root_of_gram as root_of_gram
from sklearn_mm.towers._span import span_of as span_of
from sklearn_mm.towers._tower import Tower as Tower
from sklearn_mm.towers._tower import fit_encoder as fit_encoder
from sklearn_mm.towers._tower import fit_image_encoder as fit_image_encoder
from sklearn_mm.towers._tower import make_head as make_head
from sklearn_mm.towers._tower import output_width as output_width
from sklearn_mm.towers._trainable import TrainableEncoder
from sklearn_mm.towers._trained_rows import TrainedRows as TrainedRows

__all__ = ["TowerEncoder", "TrainableEncoder"]
