"""What the numbers, protocols, rows and figures of a report mean, in words."""

from hcm_hf.metrics.bootstrap import RESAMPLES


FEW_PATIENTS = 5  # held-out ones, below which a report warns
DEFINITIONS = {
    "images": "floats in [0, 1]",
    "ssim": "structural similarity: Gaussian window 11x11, sigma 1.5, K = (.01, .03), data_range 1.0, mean over "
    "the valid interior; higher is more alike",
    "cc": "Pearson correlation of two images; higher is more alike",
    "mse": "mean squared error; lower is more alike",
    "cc_max_shift": "largest Pearson correlation of the overlap over whole-pixel shifts of at most an eighth of the "
    "image in each direction; higher is more alike",
    "spectrum_distance": "mean absolute difference of the mean log radial power spectra; lower is closer; it sees "
    "blur and noise, to which the feature encoder is nearly blind",
    "brightness_outliers": "share of images whose mean is below the 1st or above the 99th percentile of those of the "
    "held-out slices: washed out or black; lower is better",
    "c2st_auc": "area under the ROC curve of logistic regression that separates the images from held-out slices, by "
    "32 principal components of ImageNet features (EfficientNet-Lite0), in up to 5 folds that share no patient; mean "
    "over 5 draws of equally many slices, with the interval of the first; 0.5: not separable, 1: always",
    "kid_imagenet": "kid on the same features, all 1,280, over all images; lower is closer; it is no FID",
    "patient_recall": "share of held-out patients of whom a slice lies nearer to an image, in the same features, than "
    "to the slices of all other held-out patients; mean over 5 draws of equally many slices; higher is better",
    "noise_level": "noise of an image, from the median of its diagonal Haar coefficients; compare with the row real: "
    "higher is grain, lower is blur. With _z, here and below: distance from the mean over real patients, in standard "
    "deviations between patients",
    "edge_kurtosis": "excess kurtosis of the same coefficients: 0 for grain, high where detail is sparse, as in edges",
    "edge_coherence": "how far neighbouring gradients agree in direction, by the structure tensor: 0 for grain, 1 for "
    "straight edges",
    "brightness_spread": "standard deviation of mean brightness over images; lower than real: too little variety",
    "bright_outside_heart": "share of pixels above .6 among those over 56 mm from the centre: chest wall and fat",
    "fd": "squared Frechet distance of Gaussians on the first 32 principal components of the held-out slices' "
    "features, whose variance there is 1 on average; the mean over 20 draws of equally many slices; lower is "
    "closer. It is no FID: _acdc are features of the feature encoder, and numbers of other encoders do not compare",
    "relative_fd": "fd over that of the training slices: 1 is what other real patients score",
    "kid": "unbiased kernel distance (cubic kernel) of the same components, over all images; lower is closer, 0 for "
    "equal distributions",
    "precision": "share of images within the fifth-neighbour balls of held-out slices: fidelity; higher is better",
    "recall": "share of held-out slices within the balls of images: diversity; higher is better",
    "density": "number of held-out balls around an image, over 5; about 1 for real data",
    "coverage": "share of held-out balls with an image in them; higher is better; the four, like fd, as the mean over "
    "20 draws of equally many slices",
    "copy_rate": "share of images whose best correlation with a training slice exceeds that of 99 % of held-out "
    "slices: about .01 without copying (of n held-out slices, where n is below 99, 1 / (n + 1)), 1 copies",
    "nearest_neighbour_ratio": "median distance to the nearest training slice, over that of held-out slices, in "
    "pixels of mean 0 and length 1: about 1 is healthy, 0 copies",
    "c_t": "Meehan et al. 2020, a Z statistic of the same distances at equal numbers (n_each): far below 0 copies, "
    "far above 0 lies farther off than real patients; the interval of the real row is over halves of the patients",
    "authenticity": "Alaa et al. 2022: share of images that lie farther from their nearest training slice than that "
    "one from those of other patients; 0 copies; the interval is over training patients",
    "wall_thickness": "mean over slices of the greatest radial wall thickness, mm; ed at end diastole, es at end "
    "systole: by the phase that was asked for or, of real slices, the true one; by the segmenter's where none was "
    "asked for",
    "thick_share": "of the slices in that phase in which a left cavity and a wall are found (n of them), the share "
    "with a wall of 15 mm or more, the criterion of HCM at end diastole",
    "area": "of right cavity (rv), myocardium and left cavity (lv), mean, mm^2",
    "valid_topology": "share of slices with one left cavity in one closed ring of myocardium; the real row says how "
    "many end slices have none",
    "ed_share": "share of slices that the segmenter takes for end diastole, whatever was asked for (true_masks: that "
    "are)",
    "group_share": "share of slices that the segmenter takes for the groups compared with, rather than for the others",
    "mask_dice": "of the segmentations generated with the images and the segmenter's of the same images, over the "
    "pixels of all slices at once; real: of the true segmentations and the segmenter's; higher is more alike",
    "mask_valid_topology": "valid_topology of the segmentations themselves",
    "mask_empty": "share of segmentations with neither cavity nor myocardium",
    "asked_group_share": "of the slices asked to show the group (real: that are of it), the share in which the "
    "segmenter finds no other group more likely; chance is one over the number of groups, .2 of five",
    "mask_wall_thickness": "wall_thickness of the segmentations themselves, mm; of the group and phase asked for, in "
    "which n slices have a cavity and a wall",
    "mask_thick_share": "share of the same slices with a wall of 15 mm or more",
    "seen_thick_share": "the same share by the segmenter's masks of the images, of the group and phase asked for "
    "(real: the true ones)",
    "mask_wall_distance": "1-Wasserstein distance of the same thickness to that of the true segmentations of held-out "
    "slices of the group and phase, mm: how far walls must be moved on average; lower is closer; real: of the "
    "training slices, which is what other patients score",
    "membership_auc": "how well the diffusion model's denoising error tells training patients from held-out ones: .5 "
    "not at all, 1 always; the row untrained is the same network with fresh weights",
    "dice": "of the network's segmentation and the true one, by patient and phase, held-out patients of all groups; "
    "higher is better",
    "auc": "area under the ROC curve of the network's odds for the groups compared with against the rest, by slice "
    "and by patient; held-out patients; higher is better",
    "direction": "no number of SSIM, CC and MSE is better for being higher or lower: compare it with the row 'real'",
    "interval": f"low and high: 95 % by bootstrap over the patients of the reference, {RESAMPLES} times (anatomy, "
    "segmentations, texture and brightness, but not distances: over the row's own patients, and over images in the "
    "rows generated and mean_image; authenticity: over training patients; membership: over both). BCa (Efron 1987), "
    "but for what resampling biases, which has percentiles shifted by that bias: the distances fd, relative_fd, "
    "spectrum_distance and mask_wall_distance, all that looks for the most alike or for a percentile (best_train, "
    "best_heldout, copy_gap, copy_rate, authenticity, brightness_outliers, precision), c2st_auc and c_t. With few "
    "patients an interval is too narrow",
}
PROTOCOLS = {
    "random": "each offered image against {real_per_image} random held-out slices, or all where they are fewer (a "
    "single image: against all)",
    "matched": "the same, of held-out slices of the phase and the third of the heart that were asked for or, of "
    "real slices, the true ones; of those that the segmenter sees where none were asked for",
    "best_train": "each offered image against the most alike of {n_reference} random training slices",
    "best_heldout": "each offered image against the most alike of {n_reference} random held-out slices",
    "copy_gap": "how much nearer the most alike training slice is than the most alike held-out one (best_train less "
    "best_heldout; for MSE the reverse): about 0 for images that owe no more to the training patients than to others, "
    "positive for copies",
}
MEAN_IMAGES = (
    "*mean_image*: the pixel-wise mean of the training slices, as often as there are held-out slices, each time "
    "shifted by up to 3 pixels and up to 10 % brighter or darker"
)
ROWS = {
    "similarity": "*generated*: generated images; *real*: real held-out slices, offered as though generated; compared "
    "with slices of other patients only, and with as many training slices as held-out ones; *mean_image*: the "
    "pixel-wise mean of the training slices, offered as though generated",
    "appearance": f"against the held-out slices. *real*: the training slices, which a perfect copier would offer; "
    f"{MEAN_IMAGES}",
    "realism": "against the held-out slices. *real*: for c2st_auc, kid_imagenet and patient_recall the training "
    f"slices, for texture and brightness the held-out slices themselves; {MEAN_IMAGES}",
    "features": "against the held-out slices. *real*: the training slices, which a perfect copier would offer, and "
    "which the feature encoder has learnt from, so that to its features they lie farther from new patients than "
    f"patients do; {MEAN_IMAGES}",
    "memorization": "against the {n_seen} slices of {n_seen_patients} patients ({seen}) {learnt}. *real*: each "
    f"held-out patient in turn, against the others (C_T: halves of the patients); {MEAN_IMAGES}",
    "anatomy": "*real*: held-out slices, segmented by the segmenter like the generated ones; *true_masks*: the same "
    "slices with their true segmentation, where they have one, so that its difference from *real* is the segmenter's "
    f"error; *training*: the training slices, segmented, which the segmenter has learnt from; {MEAN_IMAGES}",
    "masks": "*generated*: the segmentations that were generated with the images; *real*: held-out slices of the "
    "groups ({asked}), phases and thirds of the heart that were asked for, with their true segmentations. Thirds that "
    "are left open are drawn as they are met in training",
    "membership": "*generated*: the model that made the images",
}
LEARNT = "that the generator has been trained on"
LEARNT_UNKNOWN = "that are taken for what the generator has been trained on; its images do not say it"
LIMITS = (
    "What these numbers can and cannot show. Correctly computed, slices of two different real patients score an SSIM "
    "of only about .1 to .3, so a generator should come near the row 'real', not near 1. CC and MSE reward blur and "
    "mode collapse: one constant mean image beats real patients, so neither may choose a checkpoint. SSIM of .9 and "
    "more needs near-copies of training slices, a paired protocol, or a wrong data_range. None of the three sees the "
    "disease: healthy hearts offered as HCM score the same. Distances of distributions do see it, but a copier scores "
    "perfectly on them, and blur hardly counts: read them with the copy rate and the spectrum distance."
)
ARTEFACT = (
    "ARTEFACT, not a result: images in [-1, 1] scored by SSIM with data_range 255. The constants of SSIM then "
    "outweigh the images, and any two of them look alike, real patients too."
)
GLANCE = (
    *("c2st_auc", "kid_imagenet", "patient_recall", "noise_level", "edge_kurtosis"),
    *("ssim_random", "ssim_copy_gap", "spectrum_distance", "relative_fd_acdc", "kid_acdc", "coverage_acdc"),
    *("copy_rate", "thick_share_ed", "valid_topology"),
    *("mask_dice_myocardium", "mask_valid_topology", "mask_thick_share_hcm_ed", "mask_wall_distance_hcm_ed"),
)
FIGURES = {  # by part: a pattern of the files and what they show
    "appearance": {"spectra.png": "power spectra; the band is 80 % of held-out slices"},
    "features": {"precision_recall_*.png": "precision and recall of the distributions (Sajjadi et al. 2018)"},
    "memorization": {"closest_pairs.png": "the images most like a training slice, above that slice"},
    "anatomy": {"thickness.png": "wall thickness by phase"},
    "masks": {"mask_thickness_*.png": "wall thickness of the segmentations by phase, one for each group asked for"},
}
