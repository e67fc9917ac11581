"""What each network is trained to minimise: terms of re-ID, of the gate, and of distillation, a module each.

Every objective takes (output, target) and returns named terms, already weighted; their sum is minimised.
"""

from reidlib.losses.distillation import TERMS, distillation_loss, logit_distillation
from reidlib.losses.gating import balance_loss, moe_loss, routing_loss
from reidlib.losses.reid import Target, identity_loss, reid_loss, stands_still, triplet_loss
