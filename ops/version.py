"""Which InferFlux this is."""


def installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # takes 50 ms

    try:
        return version("inferflux")
    except PackageNotFoundError:
        return "0"
