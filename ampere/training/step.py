"""One training step: the embeddings of a batch of products, its losses, and their gradients."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedTokenizerBase

from ampere.config.train import TrainSettings
from ampere.losses.contrastive import contrastive_loss
from ampere.losses.gather import all_gather, rank_and_world_size
from ampere.losses.partial_fc import PartialFC
from ampere.models.networks import text_inputs
from ampere.records import CLIP_DOMAINS, Domain
from ampere.training.data import Batch

Inputs = tuple[
    Tensor, Any, Tensor | None, Tensor
]  # frames, token ids or texts, token mask, domains
PLACES = {domain: place for place, domain in enumerate(Domain)}


class ProductModel(nn.Module):
    """The network over a batch of products: all embeddings in one forward, as DDP wants it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model  # a Network

    def forward(self, pages: Inputs, clips: Inputs, present: Tensor) -> Tensor:
        """Embed pages with one frame each and clips with all theirs.

        Args:
            pages, clips: inputs of the n pages, and of the shorts and then the lives; either may be of no rows.
            present: bool [B, 3], which products have a page, a short, a live.

        Returns:
            float32 [B, 3, D]; zero where a product lacks the domain.
        """
        parts = [self.model(*inputs) for inputs in (pages, clips) if len(inputs[0])]
        vectors = torch.cat(parts)
        out = vectors.new_zeros(*present.shape, vectors.shape[-1])
        # Rows lie domain by domain in `vectors`; the mask of the transpose walks the products in the same order.
        return out.transpose(0, 1).masked_scatter(present.T.unsqueeze(-1), vectors).transpose(0, 1)


class Step:
    """Computes the gradients of a batch, whole or in chunks.

    Args:
        network: a `ProductModel`, in DDP if there are several ranks.
        tokenizer: of the network; None where it reads no tokens.
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
        self.model = self.alone().model

    def alone(self) -> ProductModel:
        """The network without DDP."""
        found = (
            self.network.module
            if isinstance(self.network, DistributedDataParallel)
            else self.network
        )
        assert isinstance(found, ProductModel)
        return found

    def backward(self, batch: Batch, seed: int) -> Tensor:
        """Add the gradients of one batch; returns the losses, float32 [2]: contrastive, classifier.

        With `chunk_size`, embeddings are first computed without keeping activations; the losses' gradients to them are
        then handed back chunk by chunk, each computed again with the same dropout (cached contrastive learning, Gao et
        al. 2021). The gradients are those of the whole batch, but for dropout, which each chunk draws for itself.

        Args:
            seed: of dropout; steps and ranks have different ones, and chunks those that follow.
        """
        chunks = batch.split(self.settings.chunk_size or len(batch.labels))
        if len(chunks) == 1:
            total, losses = self.losses(self.embed(self.network, batch, seed), batch)
            total.backward()
            return losses
        with torch.no_grad():
            cached = torch.cat(
                [self.embed(self.alone(), chunk, seed + at) for at, chunk in enumerate(chunks)]
            )
        cached.requires_grad_()
        total, losses = self.losses(cached, batch)
        total.backward()
        assert cached.grad is not None
        grads = cached.grad.split(self.settings.chunk_size)
        for at, (chunk, grad) in enumerate(zip(chunks, grads, strict=True)):
            last = at == len(chunks) - 1
            alone = isinstance(self.network, DistributedDataParallel) and not last
            with self.network.no_sync() if alone else nullcontext():  # type: ignore[operator]
                self.embed(self.network, chunk, seed + at).backward(grad)
        return losses

    def embed(self, network: nn.Module, batch: Batch, seed: int) -> Tensor:
        """float32 [B, 3, D]: the embeddings of a batch."""
        torch.manual_seed(seed)
        present = torch.stack([batch.present[domain] for domain in Domain], dim=1).to(self.device)
        pages, clips = self.inputs(batch, (Domain.PAGE,)), self.inputs(batch, CLIP_DOMAINS)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.bf16):
            return network(pages, clips, present)

    def inputs(self, batch: Batch, domains: tuple[Domain, ...]) -> Inputs:
        """The network's inputs of some domains of a batch, domain by domain."""
        frames = torch.cat([batch.frames[domain] for domain in domains]).to(self.device)
        places = torch.cat([torch.full((len(batch.texts[d]),), PLACES[d]) for d in domains]).to(
            self.device
        )
        texts = [text for domain in domains for text in batch.texts[domain]]
        read, mask = text_inputs(self.model, self.tokenizer, texts, self.device)
        return frames, read, mask, places

    def losses(self, vectors: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and its two parts, detached, float32 [2]. A collective."""
        settings = self.settings
        rank, _ = rank_and_world_size()
        present = torch.stack([batch.present[domain] for domain in Domain], dim=1).to(self.device)
        keys, all_present = all_gather(vectors), all_gather(present)
        contrastive = contrastive_loss(
            vectors, keys, all_present, offset=rank * len(vectors),
            temperature=settings.temperature, label_smoothing=settings.label_smoothing,
        )  # fmt: skip
        labels = all_gather(batch.labels.to(self.device))[:, None].where(all_present, -1)
        classification = self.classifier(keys.flatten(0, 1), labels.flatten())
        total = contrastive + settings.classifier_weight * classification
        return total, torch.stack([contrastive.detach(), classification.detach()])
