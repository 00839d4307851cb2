"""Models that came pretrained from elsewhere: sentence encoders, and both towers of dual encoders.

Their libraries (transformers, peft, open_clip) are optional and imported where they are used.
"""

from sklearn_mm.nn.pretrained._dual import OpenedImageModel as OpenedImageModel
from sklearn_mm.nn.pretrained._dual import open_image_model as open_image_model
from sklearn_mm.nn.pretrained._dual_tokenizer import DualTokenizer as DualTokenizer
from sklearn_mm.nn.pretrained._files import find_files as find_files
from sklearn_mm.nn.pretrained._files import find_model as find_model
from sklearn_mm.nn.pretrained._files import import_optional as import_optional
from sklearn_mm.nn.pretrained._files import quiet_loading as quiet_loading
from sklearn_mm.nn.pretrained._files import read_json as read_json
from sklearn_mm.nn.pretrained._lora import LoraSettings as LoraSettings
from sklearn_mm.nn.pretrained._lora import add_lora as add_lora
from sklearn_mm.nn.pretrained._lora import is_adapter as is_adapter
from sklearn_mm.nn.pretrained._model import OpenedModel as OpenedModel
from sklearn_mm.nn.pretrained._model import PretrainedModule as PretrainedModule
from sklearn_mm.nn.pretrained._model import TextTokenizer as TextTokenizer
from sklearn_mm.nn.pretrained._model import TokenBatch as TokenBatch
from sklearn_mm.nn.pretrained._model import pad_tokens as pad_tokens
from sklearn_mm.nn.pretrained._model import rebuild as rebuild
from sklearn_mm.nn.pretrained._open import open_text_model as open_text_model
from sklearn_mm.nn.pretrained._sentence import SentenceModule as SentenceModule
from sklearn_mm.nn.pretrained._tokenizer import JsonTokenizer as JsonTokenizer
from sklearn_mm.nn.pretrained._towers import DualTextModule as DualTextModule
from sklearn_mm.nn.pretrained._towers import PretrainedImageModule as PretrainedImageModule

__all__ = ["OpenedModel", "PretrainedModule", "TextTokenizer", "TokenBatch", "open_text_model"]
