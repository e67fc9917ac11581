"""Augmentation of a uint8 batch on the device it is on.

On a GPU the whole batch at once, with no loop over images and no wait for the device; on a CPU image by image, by
slices, which moves each pixel once. The bits are the same.
"""

import numpy as np
import torch
from torch.nn.functional import pad as pad_borders

MEAN_COLOR = (124, 116, 104)  # ImageNet's; close to zero once normalised


def augment(
    images: torch.Tensor, generator: torch.Generator, *, flip=0.5, pad=10, erase=0.5, jitter=0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The field's training augmentation (Luo et al. 2019) of `images`, uint8 [B, 3, H, W], as uint8 of that shape.

    flip, erase: probability per image of a mirror image and of random erasing; pad: pixels of black border added before
    a crop back to H x W at random; jitter: strength of the change of colour in [0, 1). The generator is on the device
    of `images`; its state alone decides. Also returns which images were mirrored, bool [B].
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise TypeError(f"augment takes a uint8 batch [B, 3, H, W], not {images.dtype} {tuple(images.shape)}")
    # All draws at once, whatever is switched on, so that settings can be compared draw for draw.
    draws = torch.rand(13, len(images), generator=generator, device=images.device)
    flipped = draws[0] < flip
    images = _crop_and_flip(images, draws[1:3], flipped, pad)
    if jitter:
        images = _jitter(images, draws[3:8], jitter)
    return _erase(images, draws[8:12], draws[12] < erase), flipped


def _crop_and_flip(images: torch.Tensor, draws: torch.Tensor, flipped: torch.Tensor, pad: int) -> torch.Tensor:
    """Crops to the original size at an offset in [0, 2 pad] per image and axis, then mirrors the `flipped`."""
    offsets = (draws * (2 * pad + 1)).long()
    if images.device.type == "cpu":
        return _crop_and_flip_each(images, offsets, flipped, pad)
    return _crop_and_flip_at_once(images, offsets, flipped, pad)


def _crop_and_flip_each(images: torch.Tensor, offsets: torch.Tensor, flipped: torch.Tensor, pad: int) -> torch.Tensor:
    height, width = images.shape[2:]
    limits, out = torch.tensor([[height], [width]]), np.zeros(images.shape, np.uint8)
    shifts = (offsets - pad).clamp(-limits, limits).tolist()
    for image, crop, y, x, mirrored in zip(images.numpy(), out, *shifts, flipped.tolist()):
        if mirrored:
            crop = crop[:, :, ::-1]
        part = image[:, max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
        crop[:, max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)] = part
    return torch.from_numpy(out)


def _crop_and_flip_at_once(images: torch.Tensor, offsets: torch.Tensor, flipped: torch.Tensor, pad: int) -> torch.Tensor:
    batch, channels, height, width = images.shape
    top, left = offsets[:, :, None]
    planes = torch.arange(batch * channels, device=images.device).view(batch, channels, 1) * (height + 2 * pad)
    rows = planes + (top + torch.arange(height, device=images.device))[:, None]
    columns = torch.arange(width, device=images.device)
    columns = left + torch.where(flipped[:, None], width - 1 - columns, columns)
    padded = pad_borders(images, (pad, pad, pad, pad)).reshape(-1, width + 2 * pad)
    # Whole rows first, then columns: several times faster than one index over both.
    strips = padded.index_select(0, rows.flatten()).view(batch, channels, height, width + 2 * pad)
    return strips.gather(3, columns[:, None, None, :].expand(images.shape))


def _jitter(images: torch.Tensor, draws: torch.Tensor, strength: float) -> torch.Tensor:
    """Contrast about mid-grey, then brightness per channel (so colour too), each by a factor in 1 +- strength."""
    factors = 1 + strength * (2 * draws - 1)
    contrast, gains = factors[0][:, None], (factors[1] * factors[2:5]).T
    scale, shift = gains * contrast, gains * (1 - contrast) * 127.5
    return torch.addcmul(shift[:, :, None, None], images, scale[:, :, None, None]).round_().clamp_(0, 255).byte()


def _erase(images: torch.Tensor, draws: torch.Tensor, erased: torch.Tensor) -> torch.Tensor:
    """Random erasing in place (Zhong et al. 2020): a rectangle of 2 to 40 % of an image turns into the mean colour.

    Its aspect (height / width) is log-uniform in [0.3, 1 / 0.3], as far as a rectangle of that area fits the image:
    drawn from what fits, where the paper draws until one fits.
    """
    height, width = images.shape[2:]
    area = (0.02 + 0.38 * draws[0]) * (height * width)
    low = (area / width**2).clamp(min=0.3).log()
    high = (height**2 / area).clamp(max=1 / 0.3).log()
    aspect = (low + draws[1] * (high - low)).exp()
    h = (area * aspect).sqrt().round().clamp(1, height)
    w = (area / aspect).sqrt().round().clamp(1, width)
    top = (draws[2] * (height - h + 1)).floor()
    left = (draws[3] * (width - w + 1)).floor()
    return (_fill_each if images.device.type == "cpu" else _fill_at_once)(images, top, left, top + h, left + w, erased)


def _fill_each(images: torch.Tensor, top, left, bottom, right, erased: torch.Tensor) -> torch.Tensor:
    color = np.array(MEAN_COLOR, np.uint8)[:, None, None]
    corners = torch.stack([top, left, bottom, right], 1).long().tolist()
    for image, (top, left, bottom, right), wanted in zip(images.numpy(), corners, erased.tolist()):
        if wanted:
            image[:, top:bottom, left:right] = color
    return images


def _fill_at_once(images: torch.Tensor, top, left, bottom, right, erased: torch.Tensor) -> torch.Tensor:
    y = torch.arange(images.shape[2], device=images.device)
    x = torch.arange(images.shape[3], device=images.device)
    in_rows = (y >= top[:, None]) & (y < bottom[:, None]) & erased[:, None]
    in_columns = (x >= left[:, None]) & (x < right[:, None])
    inside = in_rows[:, :, None] & in_columns[:, None, :]
    for channel, value in enumerate(MEAN_COLOR):  # a tensor of the three would have to wait for the device
        images[:, channel].masked_fill_(inside, value)
    return images
