"""The file artifact store keeps the artifact store's contract."""

from volano.testing.conformance.artifact_store import ArtifactStoreConformance


class TestFileArtifacts(ArtifactStoreConformance):
    artifacts = "volano.stores.file_artifacts:FileArtifacts"
