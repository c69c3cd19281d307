defmodule Nerves.System.BR.Mixfile do
  # The miniature platform. It has the name of the real nerves_system_br, because Nerves and the build runners look for a
  # package of this name.
  use Mix.Project

  # A test can set the version, on which a build runner's behaviour depends (old images for versions below 1.28.0).
  @version System.get_env("MINI_PLATFORM_VERSION") ||
             Path.join(__DIR__, "VERSION") |> File.read!() |> String.trim()

  def project do
    [
      app: :nerves_system_br,
      version: @version,
      elixir: "~> 1.14",
      compilers: [:app],
      nerves_package: [type: :system_platform]
    ]
  end
end
