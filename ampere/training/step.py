"""One training step: the embeddings of a batch of products, its losses, and their gradients.

Letters, also as suffixes of names: B products of this rank, R ranks, M = 3 domains (page, short,
live), N samples (pages and clips) of this rank's batch, D embedding dimension, F frames, H and W
pixels.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedTokenizerBase

from ampere.config.train import TrainSettings
from ampere.losses.contrastive import contrastive_loss
from ampere.losses.gather import all_gather, rank_and_world_size
from ampere.losses.partial_fc import PartialFC
from ampere.models.base import Network
from ampere.models.networks import text_inputs
from ampere.records import CLIP_DOMAINS, Domain
from ampere.text.normalize import readable_text
from ampere.training.data import Batch

# Frames, token ids or texts, token mask, domain numbers, which samples have frames.
Inputs = tuple[Tensor, Any, Tensor | None, Tensor, Tensor]
DOMAIN_NUMBERS = {domain: number for number, domain in enumerate(Domain)}


class ProductModel(nn.Module):
    """The network over a batch of products: all embeddings in one forward pass, as DDP requires."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, pages: Inputs, clips: Inputs, present: Tensor, *, alone: bool = False
    ) -> Tensor:
        """Embed pages (one frame each) and clips (F frames each), and sort the vectors by product.

        Example with B = 2 products: product 0 has a page and a live, product 1 a page and a short.

            present_BM = [[1, 0, 1],
                          [1, 1, 0]]
            vectors_ND = [page0, page1, short1, live0]     # domain by domain, products in order
            present_MB = [[1, 1],    # page0, page1
                          [0, 1],    #        short1
                          [1, 0]]    # live0
            result_BMD = [[page0, 0,      live0],
                          [page1, short1, 0    ]]

        `masked_scatter` fills the True places of its mask row by row. Read along present_MB, these
        places are in the order of vectors_ND; so it fills [M, B, D], and the result is transposed.

        Args:
            pages: inputs of the pages; may have no rows.
            clips: inputs of the shorts, followed by the lives; may have no rows.
            present: bool [B, M], which products have a page, a short, a live; N of them are True.
            alone: also embed the samples' frames alone and their text alone.

        Returns:
            float32 [B, M, D]; zero where a product has no sample of the domain. With `alone`
            [3, B, M, D]: whole samples, their frames alone, their text alone.
        """
        vectors = torch.cat(
            [self._embed(*inputs, alone=alone) for inputs in (pages, clips) if len(inputs[0])],
            dim=-2,
        )
        if alone:
            return torch.stack([sort_by_product(of_view, present) for of_view in vectors])
        return sort_by_product(vectors, present)

    def _embed(self, *inputs: Any, alone: bool) -> Tensor:
        *network_inputs, has_frames = inputs
        options = {"has_frames": has_frames, "alone": alone} if self.model.embeds_alone else {}
        return self.model(*network_inputs, **options)


def sort_by_product(vectors_ND: Tensor, present: Tensor) -> Tensor:
    """Vectors [N, D] in the order of the domains to [B, M, D]; see `ProductModel.forward`."""
    present_MB = present.T
    empty_MBD = vectors_ND.new_zeros(*present_MB.shape, vectors_ND.shape[-1])
    filled_MBD = empty_MBD.masked_scatter(present_MB.unsqueeze(-1), vectors_ND)
    return filled_MBD.transpose(0, 1)


class Step:
    """Computes the gradients of a batch, whole or in chunks.

    Args:
        network: a `ProductModel`, in DDP if there are several ranks.
        classifier: class centers of the training products.
        tokenizer: of the network; None where it reads no tokens.
        settings: of the training.
        device: of the network and the classifier.
    """

    def __init__(
        self,
        network: nn.Module,
        classifier: PartialFC,
        tokenizer: PreTrainedTokenizerBase | None,
        settings: TrainSettings,
        *,
        device: torch.device,
    ) -> None:
        self.network, self.classifier, self.tokenizer = network, classifier, tokenizer
        self.settings, self.device = settings, device
        self.model = self.without_ddp().model
        self.alone = settings.alone_weight > 0 and self.model.embeds_alone

    def without_ddp(self) -> ProductModel:
        """Return the network without its DDP wrapper."""
        network = self.network
        if isinstance(network, DistributedDataParallel):
            network = network.module
        assert isinstance(network, ProductModel)
        return network

    def backward(self, batch: Batch, seed: int) -> Tensor:
        """Add the gradients of one batch to the parameters, in chunks if `chunk_size` is set.

        Args:
            batch: B products.
            seed: of dropout; it differs by step and rank, and chunk number i uses seed + i.

        Returns:
            The losses, detached, float32 [2]: contrastive, classifier.
        """
        chunks = batch.split(self.settings.chunk_size or len(batch.labels))
        if len(chunks) > 1:
            return self._backward_in_chunks(chunks, batch, seed)
        total, losses = self.losses(self.embed(self.network, batch, seed), batch)
        total.backward()
        return losses

    def _backward_in_chunks(self, chunks: list[Batch], batch: Batch, seed: int) -> Tensor:
        """Add the gradients of one batch, while only one chunk's activations are in memory.

        Cached contrastive learning (GradCache, Gao et al. 2021):

        1. Embed every chunk without keeping activations.
        2. Compute the losses of the whole batch, and their gradient at the embeddings.
        3. Embed every chunk again, with the same dropout, and backpropagate its rows of that
           gradient.

        The gradients are those of the whole batch, except that each chunk draws its own dropout.

        Example with B = 2 products and chunks of 1: two chunks give embeddings [1, M, D] each. The
        losses see cached_BMD, [2, M, D], as without chunks. Its gradient [2, M, D] is split into
        two of [1, M, D], and each goes back through its own chunk.
        """
        with torch.no_grad():
            cached_BMD = torch.cat(
                [
                    self.embed(self.without_ddp(), chunk, seed + number)
                    for number, chunk in enumerate(chunks)
                ],
                dim=-3,
            )
        cached_BMD.requires_grad_()
        total, losses = self.losses(cached_BMD, batch)
        total.backward()
        assert cached_BMD.grad is not None
        gradients = cached_BMD.grad.split(self.settings.chunk_size, dim=-3)
        in_ddp = isinstance(self.network, DistributedDataParallel)
        for number, (chunk, gradient) in enumerate(zip(chunks, gradients, strict=True)):
            last = number == len(chunks) - 1
            # DDP averages over ranks once, when all chunks have added their part.
            no_sync = in_ddp and not last
            with self.network.no_sync() if no_sync else nullcontext():  # type: ignore[operator]
                self.embed(self.network, chunk, seed + number).backward(gradient)
        return losses

    def embed(self, network: nn.Module, batch: Batch, seed: int) -> Tensor:
        """Embed a batch, as `ProductModel.forward`: float32 [B, M, D], or [3, B, M, D]."""
        torch.manual_seed(seed)
        pages, clips = self.inputs(batch, (Domain.PAGE,)), self.inputs(batch, CLIP_DOMAINS)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.bf16):
            return network(pages, clips, self._present(batch), alone=self.alone)

    def inputs(self, batch: Batch, domains: tuple[Domain, ...]) -> Inputs:
        """Collect the network's inputs of some domains of a batch, domain by domain."""
        frames = torch.cat([batch.frames[domain] for domain in domains]).to(self.device)
        numbers = torch.cat(
            [torch.full((len(batch.texts[domain]),), DOMAIN_NUMBERS[domain]) for domain in domains]
        ).to(self.device)
        texts = [text for domain in domains for text in batch.texts[domain]]
        has_frames = torch.cat([batch.has_frames[domain] for domain in domains]).to(self.device)
        tokens, mask = text_inputs(self.model, self.tokenizer, texts, self.device)
        return frames, tokens, mask, numbers, has_frames

    def losses(self, vectors: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the losses of a step over all ranks. A collective.

        Args:
            vectors: float32 [B, M, D], of this rank's products; [3, B, M, D] with parts alone.
            batch: these products.

        Returns:
            The loss to minimize, a scalar, and its two parts, detached, float32 [2].
        """
        settings, (rank, _) = self.settings, rank_and_world_size()
        parts: list[Tensor] = []
        if self.alone:
            vectors, *parts = vectors
        keys_RBMD = all_gather(vectors)  # [R * B, M, D]
        present_RBM = all_gather(self._present(batch))
        find = partial(
            contrastive_loss,
            present=present_RBM,
            offset=rank * len(vectors),
            temperature=settings.temperature,
            label_smoothing=settings.label_smoothing,
        )
        contrastive = find(vectors, keys=keys_RBMD)
        labels_RB = all_gather(batch.labels.to(self.device))
        labels_RBM = labels_RB[:, None].where(present_RBM, -1)  # -1: a row without a sample
        classification = self.classifier(keys_RBMD.flatten(0, 1), labels_RBM.flatten())
        total = contrastive + settings.classifier_weight * classification
        if parts:
            # Without gradient of the keys: whole samples do not move toward their parts.
            find = partial(find, keys=keys_RBMD.detach())
            total = total + settings.alone_weight * self._alone_loss(parts, batch, find)
        return total, torch.stack([contrastive.detach(), classification.detach()])

    def _present(self, batch: Batch) -> Tensor:
        """Which products have a page, a short, a live: bool [B, M]."""
        return torch.stack([batch.present[domain] for domain in Domain], dim=1).to(self.device)

    def _alone_loss(
        self, parts: Sequence[Tensor], batch: Batch, find: Callable[..., Tensor]
    ) -> Tensor:
        """Frames alone and text alone find whole samples: the sum of the two losses.

        Args:
            parts: float32 [B, M, D] each, the vectors of frames alone and of text alone.
            batch: these products.
            find: the contrastive loss over whole samples.
        """
        text_alone = [self._has_text(batch.texts[domain]) for domain in Domain]
        frames_alone = [batch.has_frames[domain] for domain in Domain]
        present_MB = self._present(batch).T
        losses = []
        for vectors, having in zip(parts, (frames_alone, text_alone), strict=True):
            flat = torch.cat(having).to(self.device)
            asks = torch.zeros_like(present_MB).masked_scatter(present_MB, flat).T
            losses.append(find(vectors, asks=asks))
        return torch.stack(losses).sum()

    def _has_text(self, texts: Sequence[str | None]) -> Tensor:
        return torch.tensor([readable_text(text) is not None for text in texts], dtype=torch.bool)
