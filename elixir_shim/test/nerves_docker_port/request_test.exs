defmodule NervesDockerPort.RequestTest do
  use ExUnit.Case, async: false

  alias NervesDockerPort.{Protocol, Request}

  @token "ghp_notARealToken0123456789"

  setup do
    on_exit(fn -> Nerves.Env.put_packages([]) end)
    Nerves.Env.put_packages([platform()])
  end

  defp sites, do: [{:github_api, "acme/my_system", [token: @token]}]

  defp package(changes \\ []) do
    struct!(
      %Nerves.Package{
        app: :my_system,
        path: "/home/dev/my system",
        type: :system,
        version: "0.1.0",
        build_runner: {NervesDockerPort.BuildRunner, make_args: ["A=1"]},
        config: [artifact_sites: sites(), platform_config: [defconfig: "nerves_defconfig"]]
      },
      changes
    )
  end

  defp toolchain, do: package(app: :toolchain, type: :toolchain)
  defp platform, do: package(app: :nerves_system_br, type: :system_platform, version: "1.34.0")

  test "has the package, the toolchain, the platform and the options" do
    request = Request.new(package(), toolchain(), make_args: ["A=1"])

    assert %Nerves.Package{
             app: :my_system,
             config: [platform_config: [defconfig: "nerves_defconfig"]]
           } = request.package

    assert %Nerves.Package{app: :toolchain} = request.toolchain
    assert %Nerves.Package{app: :nerves_system_br, version: "1.34.0"} = request.platform
    assert request.opts == [make_args: ["A=1"]]
  end

  test "has exactly the keys of the protocol" do
    request = Request.new(package(), nil, [])

    assert request |> Map.keys() |> Enum.sort() ==
             ~w(cwd env home names opts package platform terminal toolchain)a

    assert request.names |> Map.keys() |> Enum.sort() ==
             ~w(artifact build_path cache_path download_dir download_path extension)a

    assert request.terminal |> Map.keys() |> Enum.sort() == ~w(ansi columns interactive status)a
  end

  test "asks Nerves for the names" do
    assert %{
             artifact: "my_system-portable-0.1.0-ABCDEF0",
             extension: ".tar.gz",
             build_path: "/home/dev/my system/.nerves/artifacts/my_system-portable-0.1.0"
           } = names = Request.new(package(), nil, []).names

    assert names.download_path ==
             Path.join(names.download_dir, "my_system-portable-0.1.0-ABCDEF0.tar.gz")

    assert names.cache_path == Path.expand("~/.nerves/artifacts/my_system-portable-0.1.0")
    assert Enum.all?(Map.values(names), &String.valid?/1)
  end

  test "has the working directory and the home directory" do
    request = Request.new(package(), nil, [])
    assert request.cwd == File.cwd!()
    assert request.home == System.user_home!()
  end

  test "has no artifact sites at any level, and no token" do
    nested = package(config: [%{deep: {:a, [artifact_sites: sites(), kept: 1]}}, {:artifact_sites, sites()}])

    Nerves.Env.put_packages([platform()])
    request = Request.new(nested, toolchain(), artifact_sites: sites(), toolchain: toolchain())

    assert request.package.config == [%{deep: {:a, [kept: 1]}}]
    assert Keyword.keys(request.opts) == [:toolchain]
    assert :binary.match(Protocol.encode(request), @token) == :nomatch
    refute inspect(request, limit: :infinity) =~ "artifact_sites"
  end

  test "changes nothing else" do
    strange = [
      [1 | 2],
      ~c"charlist",
      %{1 => 1.0},
      {},
      "",
      <<1::3>>,
      self(),
      make_ref(),
      &String.length/1,
      nil,
      Version.parse!("1.0.0"),
      1..2
    ]

    assert Request.new(package(config: [strange: strange]), nil, []).package.config == [
             strange: strange
           ]
  end

  test "has the variables TERM and NERVES_DOCKER_*, and no others" do
    System.put_env("NERVES_DOCKER_TEST", "yes")
    System.put_env("NOT_OURS", @token)

    on_exit(fn -> Enum.each(["NERVES_DOCKER_TEST", "NOT_OURS"], &System.delete_env/1) end)

    env = Request.new(package(), nil, []).env
    assert env["NERVES_DOCKER_TEST"] == "yes"
    assert Enum.all?(Map.keys(env), &(&1 == "TERM" or String.starts_with?(&1, "NERVES_DOCKER_")))
    assert Map.get(env, "TERM") == System.get_env("TERM")
  end

  describe "the platform" do
    test "is nerves_system_br if that package exists" do
      other = package(app: :other_platform, type: :system_platform)
      Nerves.Env.put_packages([other, platform()])
      assert Request.new(package(), nil, []).platform.app == :nerves_system_br
    end

    test "is else the only system platform" do
      Nerves.Env.put_packages([package(), package(app: :other_platform, type: :system_platform)])
      assert Request.new(package(), nil, []).platform.app == :other_platform
    end

    test "may be missing" do
      Nerves.Env.put_packages([package()])
      assert Request.new(package(), nil, []).platform == nil
    end

    test "must not be one of several system platforms" do
      Nerves.Env.put_packages(for app <- [:one, :two], do: package(app: app, type: :system_platform))

      assert_raise Mix.Error, ~r/more than one system platform: :one, :two/, fn ->
        Request.new(package(), nil, [])
      end
    end
  end
end
