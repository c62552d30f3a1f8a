"""Names that files and commands share; free of heavy imports."""

CONFIG_FILE = "training_config.json"  # what a training run writes of itself, in its folder and beside each pipeline
INSTRUMENT_FOLDERS = ("features", "segmenter")  # the two networks of an encoder, in its folder
TARGET_GROUP = "HCM"  # the disease of interest, where no other group is named
