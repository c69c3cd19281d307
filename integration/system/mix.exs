defmodule MySystem.MixProject do
  # A custom Nerves system as a user would write one; what differs for the tests is marked, and read from the environment:
  #
  #   MINI_IMAGE            the build image's tag
  #   MINI_DOCKERFILE       the Dockerfile that makes it, where it is not there
  #   MINI_DEFAULT_IMAGE=1  no build_runner_config: the platform's own image
  #   MINI_MAKE_ARGS        arguments for make, as a shell would split them: "LINES=100 FAIL=1"
  #   MINI_RUNNER           another build runner: "Nerves.Artifact.BuildRunners.Docker"
  #   MINI_SHIM_PATH        another place of nerves_docker_port
  #   MINI_PLATFORM_PATH    another place of the platform, and MINI_PLATFORM_VERSION, its version
  #   NERVES_HEX=1          Nerves and its dependencies from Hex, MINI_NERVES says which ("~> 1.13.2"); or
  #   NERVES_PATH           a checkout of Nerves, and with it
  #   NERVES_DEPS_PATH      a directory of checkouts of its dependencies, for where Hex cannot be reached.
  #                         Without any it is the stand-in, which needs neither Hex nor the nerves_bootstrap archive.
  use Mix.Project

  @app :my_system
  @version Path.join(__DIR__, "VERSION") |> File.read!() |> String.trim()

  @nerves_path System.get_env("NERVES_PATH") || Path.expand("../nerves_stand_in", __DIR__)

  # Test only: the stand-in brings what the archive would.
  bootstrap = Path.join(@nerves_path, "bootstrap.exs")

  if System.get_env("NERVES_HEX") == nil and File.exists?(bootstrap),
    do: Code.require_file(bootstrap)

  def project do
    [
      app: @app,
      version: @version,
      elixir: "~> 1.14",
      compilers: Mix.compilers() ++ [:nerves_package],
      nerves_package: nerves_package(),
      deps: deps(),
      aliases: [loadconfig: [&bootstrap/1]]
    ]
  end

  def application, do: []

  # As in every official system: the project is its own target.
  defp bootstrap(args) do
    Mix.target(:target)
    Application.start(:nerves_bootstrap)
    Mix.Task.run("loadconfig", args)
  end

  defp nerves_package do
    [
      type: :system,
      build_runner: build_runner(),
      build_runner_opts: build_runner_opts(),
      build_runner_config: build_runner_config(),
      platform: Nerves.System.BR,
      platform_config: [
        defconfig: "nerves_defconfig"
      ],
      checksum: ["nerves_defconfig", "mix.exs", "VERSION"]
    ]
  end

  defp build_runner do
    case System.get_env("MINI_RUNNER") do
      nil -> NervesDockerPort.BuildRunner
      name -> Module.concat([name])
    end
  end

  defp build_runner_opts do
    case System.get_env("MINI_MAKE_ARGS") do
      nil -> []
      text -> [make_args: OptionParser.split(text)]
    end
  end

  defp build_runner_config do
    if System.get_env("MINI_DEFAULT_IMAGE") do
      []
    else
      dockerfile = System.get_env("MINI_DOCKERFILE", "Dockerfile")
      [docker: {dockerfile, System.get_env("MINI_IMAGE", "nerves_docker_port/builder:new")}]
    end
  end

  defp deps do
    [
      nerves(),
      {:nerves_system_br,
       path: System.get_env("MINI_PLATFORM_PATH", "../platform"), runtime: false},
      {:nerves_docker_port,
       path: System.get_env("MINI_SHIM_PATH", "../../elixir_shim"), runtime: false}
    ] ++ nerves_deps()
  end

  defp nerves do
    if System.get_env("NERVES_HEX") do
      {:nerves, System.get_env("MINI_NERVES", "~> 1.11"), runtime: false}
    else
      {:nerves, path: @nerves_path, runtime: false}
    end
  end

  defp nerves_deps do
    case System.get_env("NERVES_DEPS_PATH") do
      nil ->
        []

      directory ->
        for path <- Path.wildcard(Path.join(directory, "*")) do
          {String.to_atom(Path.basename(path)), path: path, runtime: false, override: true}
        end
    end
  end
end
