"""The network: configuration, aggregation, interaction, objective and the model."""

from .configuration_hcmi import LEVELS, HCMIConfig
from .features_hcmi import HCMITextFeatures, HCMIVideoFeatures, concatenate_features
from .interaction_hcmi import HCMISimilarity
from .modeling_hcmi import HCMIModel, HCMIOutput, HCMIPreTrainedModel
from .objective_hcmi import HCMIObjective, hcmi_objective

__all__ = [
    "LEVELS",
    "HCMIConfig",
    "HCMIModel",
    "HCMIObjective",
    "HCMIOutput",
    "HCMIPreTrainedModel",
    "HCMISimilarity",
    "HCMITextFeatures",
    "HCMIVideoFeatures",
    "concatenate_features",
    "hcmi_objective",
]
