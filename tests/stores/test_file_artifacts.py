"""The file artifact store keeps the artifact store's contract."""

from volano.testing.conformance.artifact_store import ArtifactStoreConformance
from volano.testing.conformance.power_loss import ArtifactStorePowerLossConformance


class TestFileArtifacts(ArtifactStoreConformance):
    artifacts = "volano.stores.file_artifacts:FileArtifacts"


class TestFileArtifactsOnASimulatedDisk(ArtifactStorePowerLossConformance):
    artifacts = TestFileArtifacts.artifacts
