defmodule NervesDockerPort.BuildRunnerTest do
  use NervesDockerPort.HelperCase, async: false

  alias NervesDockerPort.{BuildRunner, Command}

  doctest BuildRunner

  @variable "NERVES_DOCKER_PORT_COMMAND"

  setup %{directory: directory} do
    saved = System.get_env(@variable)

    on_exit(fn ->
      Nerves.Env.put_packages([])
      if saved, do: System.put_env(@variable, saved), else: System.delete_env(@variable)
    end)

    package = %Nerves.Package{
      app: :my_system,
      path: directory,
      type: :system,
      version: "0.1.0",
      config: [
        artifact_sites: [{:github_api, "acme/my_system", token: "a token"}],
        checksum: ["mix.exs"]
      ]
    }

    Nerves.Env.put_packages([%{package | app: :nerves_system_br, type: :system_platform}, package])

    {:ok, package: package, request: Path.join(directory, "request")}
  end

  defp helper(%{directory: directory, request: request}, outcome) do
    words = fake_words(directory, [say(hello()), {:read, request}, say({:done, 1, outcome})])
    System.put_env(@variable, Enum.join(words, " "))
  end

  test "has the callbacks of the behaviour" do
    callbacks = Nerves.Artifact.BuildRunner.behaviour_info(:callbacks)
    Code.ensure_loaded!(BuildRunner)
    for {name, arity} <- callbacks, do: assert(function_exported?(BuildRunner, name, arity))
  end

  test "build returns the path of the artifact", %{package: package} = context do
    helper(context, {:ok, %{path: "/dl/N.tar.gz", size: 1, sha256: "00", stages: [make: 1]}})

    assert BuildRunner.build(package, %{package | type: :toolchain}, make_args: ["A=1"]) ==
             {:ok, "/dl/N.tar.gz"}

    assert {:request, 1, :build,
            %{opts: [make_args: ["A=1"]], package: sent, toolchain: toolchain, platform: platform}} =
             saved_term(context.request)

    assert sent == %{package | config: [checksum: ["mix.exs"]]}
    assert toolchain.config == [checksum: ["mix.exs"]]
    assert platform.config == [checksum: ["mix.exs"]]
    refute File.read!(context.request) =~ "a token"
  end

  test "archive returns the path of the artifact, also without a toolchain",
       %{package: package} = context do
    helper(context, {:ok, %{path: "/dl/N.tar.gz"}})

    assert BuildRunner.archive(package, nil, path: "/out", name: "N.tar.gz") ==
             {:ok, "/dl/N.tar.gz"}

    assert {:request, 1, :archive, %{toolchain: nil, opts: opts}} = saved_term(context.request)
    assert opts == [path: "/out", name: "N.tar.gz"]
  end

  test "clean returns :ok", %{package: package} = context do
    helper(context, {:ok, %{removed: ["my_system-abc"]}})
    assert BuildRunner.clean(package) == :ok
    assert {:request, 1, :clean, %{toolchain: nil, opts: []}} = saved_term(context.request)
  end

  test "an error raises Mix.Error from each callback", %{package: package} = context do
    helper(
      context,
      {:error, %{code: :engine_unreachable, message: "No engine.", hint: "Start one.", log: nil}}
    )

    for call <- [
          &BuildRunner.build(&1, nil, []),
          &BuildRunner.archive(&1, nil, []),
          &BuildRunner.clean/1,
          &BuildRunner.system_shell/1
        ] do
      assert_raise Mix.Error, "No engine.\n\nStart one.", fn -> call.(package) end
    end
  end

  test "an outcome without a path raises", %{package: package} = context do
    helper(context, {:ok, %{size: 1}})
    assert_raise Mix.Error, ~r/named no artifact/, fn -> BuildRunner.build(package, nil, []) end
  end

  # tests/terminal in the repository has the tests with InteractiveCmd and a terminal.
  test "system_shell prepares the shell, and names the command if the terminal cannot be given away",
       %{package: package} = context do
    spec = Path.join(context.directory, "a b's/spec")
    helper(context, {:ok, %{spec: spec}})

    error = assert_raise Mix.Error, fn -> BuildRunner.system_shell(package) end
    assert error.message =~ "The build shell is prepared, but Mix "
    words = fake_words(context.directory, []) ++ ["shell", spec]
    program = System.find_executable(hd(words))
    assert error.message =~ "\n    #{Command.to_shell([program | tl(words)])}\n"
    assert {:request, 1, :shell, %{toolchain: nil, opts: []}} = saved_term(context.request)
    refute File.exists?(spec <> ".outcome")
  end

  test "system_shell raises if the helper names no file", %{package: package} = context do
    helper(context, {:ok, %{size: 1}})
    assert_raise Mix.Error, ~r/named no file/, fn -> BuildRunner.system_shell(package) end
  end

  test "a POSIX shell splits the line into the same words", %{directory: directory} do
    words = ["/bin/echo", "it's", "$HOME `x` \\", "", "é\n", "-n", "~", "a=b"]
    printf = "printf '%s\\0' " <> Command.to_shell(words)
    assert {output, 0} = System.cmd("/bin/sh", ["-c", printf], cd: directory)
    assert output == Enum.map_join(words, &(&1 <> <<0>>))
  end

  test "parse_docker_version takes any text" do
    assert BuildRunner.parse_docker_version("17.03.1-ce, build c6d412e") ==
             Version.parse("17.3.1-ce")

    assert BuildRunner.parse_docker_version("20.10.07, build f0df350") == Version.parse("20.10.7")
    assert BuildRunner.parse_docker_version("1.12.0-rc2") == Version.parse("1.12.0-rc2")
    assert BuildRunner.parse_docker_version("28.2.2") == Version.parse("28.2.2")
    assert BuildRunner.parse_docker_version("007.000.0") == Version.parse("7.0.0")

    for text <- [
          "",
          ",",
          "24.0",
          "a.b.c",
          "4.9.3\n",
          "nerdctl version 1.7.6",
          <<0xFF, 0>>,
          "é.1.2",
          "1.2.3-",
          "..",
          "-1.0.0"
        ] do
      assert BuildRunner.parse_docker_version(text) == :error, inspect(text)
    end
  end

  test "parse_docker_version does not crash on random bytes" do
    :rand.seed(:exsss, {3, 2, 1})
    alphabet = ~c"0123456789.-+, \nav" ++ [0, 0xC3, 0xFF]

    for _ <- 1..20_000 do
      text = for _ <- 1..:rand.uniform(12), into: <<>>, do: <<Enum.random(alphabet)>>
      result = BuildRunner.parse_docker_version(text)
      assert result == :error or match?({:ok, %Version{}}, result), inspect(text)
    end
  end
end
