defmodule NervesDockerPort.MixProject do
  use Mix.Project

  @version "0.1.0"
  # Where the repository is published. The links in the documentation lead there.
  @source_url "https://github.com/nerves-project/nerves_docker_port"

  # In the repository, the documents are one directory up. `make hex` puts them beside this file.
  @documents if(File.dir?(Path.join(__DIR__, "docs")), do: ".", else: "..")

  def project do
    [
      app: :nerves_docker_port,
      version: @version,
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      deps: deps(),
      # Before Nerves builds a system, it compiles only Nerves packages. If this package was none, the first `mix compile`
      # would not find the build runner.
      nerves_package: [type: :package],
      name: "nerves_docker_port",
      description: "Builds Nerves systems on a Docker engine, without the docker CLI",
      source_url: @source_url,
      package: package(),
      docs: docs(),
      dialyzer: [flags: [:unmatched_returns, :error_handling, :extra_return, :missing_return]]
    ]
  end

  # There is no OTP application, because all code runs inside Mix.
  def application, do: []

  # Elixir 1.14 does not read this. With it, put MIX_ENV=tools before these tasks.
  def cli, do: [preferred_envs: [docs: :tools, credo: :tools, dialyzer: :tools]]

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  # Nerves is not listed, although this package calls it. It is a dependency of the system, and all calls to it are resolved
  # at run time. So none of the two has to be compiled first, and a Nerves from a path needs no `override`.
  #
  # `mix deps.get` fetches these tools. They have a Mix environment of their own, so compilation and tests work without them.
  # Without Hex, Mix cannot read such a list, so the list is empty then.
  defp deps do
    if Code.ensure_loaded?(Hex) do
      [
        {:credo, "~> 1.7", only: :tools, runtime: false},
        {:dialyxir, "~> 1.4", only: :tools, runtime: false},
        {:ex_doc, "~> 0.34", only: :tools, runtime: false}
      ]
    else
      []
    end
  end

  # NOTICE says which part has which license.
  defp package do
    [
      licenses: ["Apache-2.0", "BSD-3-Clause", "MIT", "MPL-2.0"],
      links: %{"GitHub" => @source_url, "Nerves" => "https://nerves-project.org"},
      files:
        ~w(lib priv mix.exs .formatter.exs docs) ++
          ~w(README.md CHANGELOG.md CONTRIBUTING.md RELEASE.md SECURITY.md LICENSE NOTICE),
      exclude_patterns: [~r/__pycache__/]
    ]
  end

  defp docs do
    [
      main: "readme",
      source_ref: "v#{@version}",
      source_url_pattern: "#{@source_url}/blob/v#{@version}/elixir_shim/%{path}#L%{line}",
      extras: pages(),
      assets: %{Path.join(@documents, "docs/images") => "docs/images"},
      groups_for_extras: [
        "For contributors": ~r{(architecture|protocol|CONTRIBUTING|RELEASE|SECURITY)\.md},
        Guides: ~r{docs/}
      ],
      groups_for_modules: [
        "For a system's mix.exs": [NervesDockerPort, NervesDockerPort.BuildRunner],
        "The request": [NervesDockerPort.Request, NervesDockerPort.Project, NervesDockerPort.Shell],
        "The helper": [
          NervesDockerPort.Command,
          NervesDockerPort.Helper,
          NervesDockerPort.Connection,
          NervesDockerPort.Protocol
        ],
        "The terminal": [NervesDockerPort.Console]
      ]
    ]
  end

  defp pages do
    page = &Path.join(@documents, &1)
    guides = Path.wildcard(page.("docs/*.md"))
    [page.("README.md")] ++ guides ++ Enum.map(~w(CONTRIBUTING.md RELEASE.md SECURITY.md CHANGELOG.md), page)
  end
end
