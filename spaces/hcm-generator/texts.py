"""What the page says, in English and in Spanish: `texts.yaml`."""

from pathlib import Path

import gradio as gr
import yaml


TEXTS = yaml.safe_load((Path(__file__).parent / "texts.yaml").read_text(encoding="utf-8"))
LANGUAGES = ("en", "es")
I18N = gr.I18n(**{language: {key: text[language] for key, text in TEXTS.items()} for language in LANGUAGES})
