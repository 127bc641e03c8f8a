"""Fill the one version of both distributions into the requirements that name it (see pyproject.toml)."""

from hatchling.metadata.plugin.interface import MetadataHookInterface


class CustomMetadataHook(MetadataHookInterface):
    def update(self, metadata: dict) -> None:
        def fill(requirements: list[str]) -> list[str]:
            return [requirement.format(version=metadata["version"]) for requirement in requirements]

        metadata["dependencies"] = fill(self.config["dependencies"])
        metadata["optional-dependencies"] = {
            extra: fill(requirements) for extra, requirements in self.config["optional-dependencies"].items()
        }
