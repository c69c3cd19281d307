defmodule NervesDockerPort.CommandTest do
  use NervesDockerPort.HelperCase, async: false

  alias NervesDockerPort.{Command, Helper}

  doctest Command

  @variable "NERVES_DOCKER_PORT_COMMAND"

  setup do
    saved = for name <- [@variable, "PATH"], do: {name, System.get_env(name)}
    System.delete_env(@variable)

    on_exit(fn ->
      Application.delete_env(:nerves_docker_port, :command)
      Application.delete_env(:nerves_docker_port, :python)

      for {name, value} <- saved do
        if value, do: System.put_env(name, value), else: System.delete_env(name)
      end
    end)
  end

  defp program(directory, name, text \\ "#!/bin/sh\nexit 78\n") do
    path = Path.join(directory, name)
    File.write!(path, text)
    File.chmod!(path, 0o755)
    path
  end

  defp error, do: assert_raise(Mix.Error, fn -> Command.resolve() end).message

  describe "the packaged helper" do
    setup %{directory: directory} do
      packaged = Path.join(directory, "priv with space")
      File.mkdir_p!(packaged)
      File.write!(Path.join(packaged, "__main__.py"), "")
      {:ok, packaged: packaged}
    end

    test "is in priv/python" do
      # The test does not need `make package`: it checks only where the helper is searched for.
      directory = Application.app_dir(:nerves_docker_port, "priv/python")

      if File.exists?(Path.join(directory, "__main__.py")) do
        assert directory in Command.resolve().arguments
      else
        assert error() =~ directory
      end
    end

    test "runs isolated, with the python3 on the PATH", %{
      directory: directory,
      packaged: packaged
    } do
      python = program(directory, "python3")
      System.put_env("PATH", directory)

      assert Command.resolve(packaged) == %Command{
               executable: python,
               arguments: ["-I", "-S", "-X", "utf8", packaged, "port"],
               origin: :packaged
             }
    end

    test "does not import the user's own modules, and runs from a directory that cannot be written",
         context do
      %{directory: directory, packaged: packaged} = context
      File.write!(Path.join(directory, "struct.py"), "raise SystemExit(99)")

      File.cp!(
        Path.expand("../support/fake_helper.py", __DIR__),
        Path.join(packaged, "__main__.py")
      )

      [_python, _isolated, _main, script] =
        fake_words(directory, [:greet, say({:done, 1, {:ok, "isolated"}})])

      File.chmod!(packaged, 0o555)
      System.put_env("PYTHONPATH", directory)
      on_exit(fn -> System.delete_env("PYTHONPATH") end)

      command = Command.resolve(packaged)
      # The fake helper has its script as an argument before the operation.
      command = %{command | arguments: List.insert_at(command.arguments, -2, script)}
      assert Helper.request(:build, %{}, command: command) == "isolated"
    end

    test "without any python3 on the PATH: the error says what to install", %{
      directory: directory,
      packaged: packaged
    } do
      System.put_env("PATH", directory)
      message = assert_raise(Mix.Error, fn -> Command.resolve(packaged) end).message
      assert message =~ "There is no python3 on the PATH"
      assert message =~ "sudo apt-get install python3"
      assert message =~ "brew install python"
      assert message =~ "3.10"
    end

    test "with a python3 that is too old: the error says what to install", %{
      directory: directory,
      packaged: packaged
    } do
      python = program(directory, "python3")
      System.put_env("PATH", directory)
      command = Command.resolve(packaged)

      message = assert_raise(Mix.Error, fn -> Helper.request(:build, %{}, command: command) end).message

      assert message =~ "#{python} is older than Python 3.10"
      assert message =~ "sudo apt-get install python3"
    end

    test "that is missing in a checkout: the error says to run make package", %{directory: directory} do
      message = assert_raise(Mix.Error, fn -> Command.resolve(directory) end).message
      assert message =~ "there is no #{directory}/__main__.py"
      assert message =~ "make -C #{Path.expand("../../..", __DIR__)} package"
    end

    test "that is missing because Mix has fetched only this directory: the error names the right option" do
      message = Command.renewal("/home/a b/deps/nerves_docker_port/elixir_shim")
      assert message =~ ~s(`subdir: "elixir_shim"` instead of `sparse: "elixir_shim"`)
      assert message =~ "\n    mix deps.get\n    make -C '/home/a b/deps/nerves_docker_port' package\n"
    end

    test "that is missing from a release: the error says to fetch it again" do
      message = Command.renewal("/home/a/deps/nerves_docker_port")
      assert message =~ "\n    mix deps.clean nerves_docker_port && mix deps.get\n"
    end
  end

  describe "a python3 that does not run the helper" do
    setup %{directory: directory} do
      packaged = Path.join(directory, "priv")
      File.mkdir_p!(packaged)

      File.cp!(
        Path.expand("../support/fake_helper.py", __DIR__),
        Path.join(packaged, "__main__.py")
      )

      [_python, _isolated, _main, script] = fake_words(directory, [:greet, say({:done, 1, {:ok, "found"}})])

      python = System.find_executable("/usr/bin/python3") || System.find_executable("python3")
      {:ok, packaged: packaged, script: script, python: python}
    end

    # Makes directories on the PATH with programs that write a line to a file each time they are started.
    defp on_path(%{directory: directory} = context, programs) do
      paths =
        for {{name, what}, index} <- Enum.with_index(programs) do
          bin = Path.join(directory, "bin#{index}")
          File.mkdir_p!(bin)
          body = if what == :works, do: ~s(exec #{context.python} "$@"), else: "exit #{what}"
          program(bin, name, "#!/bin/sh\necho #{bin}/#{name} >> #{directory}/started\n#{body}\n")
        end

      System.put_env("PATH", Enum.map_join(paths, ":", &Path.dirname/1))
      paths
    end

    defp started(directory) do
      directory |> Path.join("started") |> File.read!() |> String.split("\n", trim: true)
    end

    # The fake helper has its script as an argument before the operation.
    defp ask(context) do
      command = Command.resolve(context.packaged)
      command = %{command | arguments: List.insert_at(command.arguments, -2, context.script)}
      Helper.request(:clean, %{}, command: command)
    end

    test "is not searched for if the first one runs it", context do
      [first, _second] = on_path(context, [{"python3", :works}, {"python3.12", :works}])
      assert ask(context) == "found"
      assert started(context.directory) == [first]
    end

    test "is followed by the others, the newest first", context do
      # A shim of pyenv or asdf, an old Python, and a broken Python.
      for status <- [127, 126, 78, 1] do
        [first, _old, _new, works] =
          on_path(context, [
            {"python3", status},
            {"python3.10", :works},
            {"python3.13", 1},
            {"python3.12", :works}
          ])

        Application.delete_env(:nerves_docker_port, :python)
        File.rm(Path.join(context.directory, "started"))
        assert ask(context) == "found"
        assert [^first, _new, ^works] = started(context.directory)

        # From now on this one is tried first.
        assert Command.resolve(context.packaged).executable == works
        assert ask(context) == "found"
        assert List.last(started(context.directory)) == works
        assert length(started(context.directory)) == 4
      end
    end

    test "is followed by another one of the same name in a later directory of the PATH", context do
      [_shim, works] = on_path(context, [{"python3", 127}, {"python3", :works}])
      assert ask(context) == "found"
      assert Command.resolve(context.packaged).executable == works
    end

    test "does not exist, but one with a version in its name does", context do
      [works] = on_path(context, [{"python3.11", :works}])
      assert ask(context) == "found"
      assert Command.resolve(context.packaged).executable == works
    end

    test "cannot be started, so the next one is used", context do
      [broken, works] = on_path(context, [{"python3", :works}, {"python3.12", :works}])
      File.write!(broken, "#!/no/such/interpreter\n")
      assert ask(context) == "found"
      assert Command.resolve(context.packaged).executable == works
    end

    test "and no other one does: the error names each and its failure", context do
      [shim, old, broken] = on_path(context, [{"python3", 127}, {"python3.12", 78}, {"python3.11", 1}])
      message = assert_raise(Mix.Error, fn -> ask(context) end).message
      assert message =~ "The helper ended before it said hello (exit status 127)"
      assert message =~ "#{shim} is probably the shim of a version manager (pyenv, asdf, mise)"

      assert message =~
               "These do not run it either:\n\n  #{old}: older than Python 3.10\n  #{broken}: exit status 1\n"

      assert message =~ "brew install python"
    end

    test "is not replaced if the user has named it", context do
      [first, _second] = on_path(context, [{"python3", 127}, {"python3.12", :works}])
      System.put_env(@variable, "python3 #{context.packaged}/__main__.py #{context.script}")
      message = assert_raise(Mix.Error, fn -> Helper.request(:clean, %{}) end).message
      assert message =~ "unset #{@variable}"
      assert started(context.directory) == [first]
    end

    test "has a remedy that works without changes", context do
      for name <- ["priv", "priv of it's own"] do
        packaged = Path.join(context.directory, name)
        File.mkdir_p!(packaged)
        File.cp!(Path.join(context.packaged, "__main__.py"), Path.join(packaged, "__main__.py"))

        [line] = Regex.run(~r/^ *export .*$/m, Command.python_hint(packaged))
        python = program(context.directory, "python3.12", ~s(#!/bin/sh\nexec #{context.python} "$@"\n))
        line = String.replace(line, "/usr/bin/python3.12", python)

        {value, 0} = System.cmd("sh", ["-c", line <> ~s(; printf %s "$#{@variable}")])
        System.put_env(@variable, value)
        command = Command.resolve()
        assert command.arguments == ["-I", "-S", "-X", "utf8", packaged, "port"]
        command = %{command | arguments: List.insert_at(command.arguments, -2, context.script)}
        assert Helper.request(:clean, %{}, command: command) == "found"
      end
    end
  end

  describe "the environment variable" do
    test "is split as a shell does", %{directory: directory} do
      python = program(directory, "my python")
      System.put_env(@variable, ~s("#{python}" -m nerves_docker_port --x 'a b'))

      assert Command.resolve() == %Command{
               executable: python,
               arguments: ["-m", "nerves_docker_port", "--x", "a b", "port"],
               origin: :environment
             }
    end

    test "finds a program on the PATH", %{directory: directory} do
      path = program(directory, "my-helper")
      System.put_env("PATH", directory)
      System.put_env(@variable, "my-helper")
      assert %Command{executable: ^path, arguments: ["port"]} = Command.resolve()
    end

    test "has precedence over the configuration", %{directory: directory} do
      path = program(directory, "from-variable")
      System.put_env(@variable, path)
      Application.put_env(:nerves_docker_port, :command, ["/nowhere"])
      assert %Command{executable: ^path, origin: :environment} = Command.resolve()
    end

    test "that is wrong is named in the error" do
      System.put_env(@variable, "/no/such/python -m nerves_docker_port")
      assert error() =~ ~s(#{@variable} names "/no/such/python", and there is no such program)

      System.put_env(@variable, "python3 'unclosed")
      assert error() =~ "#{@variable} cannot be read"

      System.put_env(@variable, "  ")
      assert error() =~ "has to hold a program"
    end

    test "starts that helper", %{directory: directory} do
      words = fake_words(directory, [:greet, say({:done, 1, {:ok, "mine"}})])
      System.put_env(@variable, Enum.join(words, " "))
      assert Helper.request(:build, %{}) == "mine"
    end
  end

  describe "the configuration" do
    test "is a list of words", %{directory: directory} do
      words = fake_words(directory, [:greet, say({:done, 1, {:ok, "configured"}})])
      Application.put_env(:nerves_docker_port, :command, words)
      assert %Command{origin: :config} = Command.resolve()
      assert Helper.request(:build, %{}) == "configured"
    end

    test "that is wrong is named in the error" do
      for value <- ["python3 -m x", [], [:python3], ["python3", 1]] do
        Application.put_env(:nerves_docker_port, :command, value)

        assert error() =~
                 "`config :nerves_docker_port, command: ...` has to hold a program and its arguments"
      end
    end
  end
end
