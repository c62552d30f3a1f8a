"""The files of saved pipelines, one of each kind of network."""

INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"


NETWORK, UNET = "network/config.json", "unet/config.json"


KINDS = {"vae": ("vae", "tuned"), "gan": ("gan", "paper"), "dcgan": ("dcgan", "paper"), "acgan": ("acgan", "paper")}
KINDS |= {"infogan": ("infogan", "paper"), "ddpm": ("ddpm", "paper"), "paired": ("ddpm", "tuned")}


def weights_of(folder):
    (path,) = folder.rglob("*.safetensors")
    return path


def paths_of(folder):
    return [path for path in folder.rglob("*") if path.is_file()]
