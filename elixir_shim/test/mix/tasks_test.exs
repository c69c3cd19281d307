defmodule Mix.Tasks.NervesDockerPortTest do
  use NervesDockerPort.HelperCase, async: false

  alias Mix.Tasks.NervesDockerPort.{Copy, Doctor, Make, Report, Run, Volumes}

  @variable "NERVES_DOCKER_PORT_COMMAND"

  setup %{directory: directory} do
    saved = System.get_env(@variable)

    on_exit(fn ->
      Nerves.Env.put_packages([])
      if saved, do: System.put_env(@variable, saved), else: System.delete_env(@variable)
    end)

    Mix.Task.reenable("nerves.env")
    Application.delete_env(:nerves_docker_port, :test_nerves_env)
    {:ok, request: Path.join(directory, "request")}
  end

  defp in_a_system(%{directory: directory}) do
    package = %Nerves.Package{app: :my_system, path: directory, type: :system, version: "0.1.0"}
    Nerves.Env.put_packages([%{package | app: :nerves_system_br, type: :system_platform}, package])
  end

  defp helper(%{directory: directory, request: request}, steps) do
    words = fake_words(directory, [say(hello()), {:read, request}] ++ steps)
    System.put_env(@variable, Enum.join(words, " "))
  end

  defp reports(context, ok?) do
    value = %{ok: ok?, text: "ok       python     3.12.1", json: ~s({"ok": #{ok?}})}
    helper(context, [say({:done, 1, {:ok, value}})])
  end

  describe "doctor" do
    test "examines the project's system without a build of it", context do
      in_a_system(context)
      reports(context, true)
      assert Doctor.run([]) == :ok
      assert printed() == ["ok       python     3.12.1"]
      assert {:request, 1, :doctor, args} = saved_term(context.request)
      assert %{package: %{app: :my_system}, platform: %{app: :nerves_system_br}, names: %{}} = args
      assert Application.get_env(:nerves_docker_port, :test_nerves_env) == ["--disable"]
    end

    test "works outside a Nerves project", context do
      reports(context, true)
      assert Doctor.run([]) == :ok
      assert {:request, 1, :doctor, args} = saved_term(context.request)
      assert Enum.sort(Map.keys(args)) == [:cwd, :env, :home, :package, :terminal]
      assert args.package == nil
    end

    test "prints JSON", context do
      reports(context, true)
      assert Doctor.run(["--json"]) == :ok
      assert printed() == [~s({"ok": true})]
    end

    test "ends Mix with status 1 if a build would fail", context do
      for arguments <- [[], ["--json"]] do
        reports(context, false)
        assert catch_exit(Doctor.run(arguments)) == {:shutdown, 1}
        assert [_report] = printed()
      end
    end

    test "takes no other arguments" do
      assert_raise Mix.Error, ~r/takes no now/, fn -> Doctor.run(["now"]) end
      assert_raise OptionParser.ParseError, fn -> Doctor.run(["--yaml"]) end
    end

    test "raises if the helper makes no report", context do
      helper(context, [say({:done, 1, {:ok, %{ok: true}}})])
      assert_raise Mix.Error, ~r/made no report/, fn -> Doctor.run([]) end
    end
  end

  describe "volumes" do
    test "lists the volumes of the project", context do
      in_a_system(context)
      helper(context, [say({:done, 1, {:ok, %{text: "my_system-abc  1.2 GB", removed: []}}})])
      assert Volumes.run([]) == :ok
      assert printed() == ["my_system-abc  1.2 GB"]

      assert {:request, 1, :volumes, %{all: false, prune: false, yes: false, package: package}} =
               saved_term(context.request)

      assert package.app == :my_system
    end

    test "asks before it removes a volume, and passes the answer on", context do
      in_a_system(context)
      answer = Path.join(context.directory, "answer")

      helper(context, [
        say({:ask, 1, 1, {:yes_no, "my_system-old\n\nRemove this build volume?", false}}),
        {:read, answer},
        say({:done, 1, {:ok, %{text: "Removed my_system-old", removed: ["my_system-old"]}}})
      ])

      send(self(), {:mix_shell_input, :yes?, true})
      assert Volumes.run(["--prune"]) == :ok
      assert_received {:mix_shell, :yes?, ["my_system-old\n\nRemove this build volume?"]}
      assert {:request, 1, :volumes, %{prune: true, yes: false}} = saved_term(context.request)
      assert saved_term(answer) == {:answer, 1, true}
      assert "Removed my_system-old" in printed()
    end

    test "passes all, prune and yes to the helper, also outside a project", context do
      for {arguments, all, prune, yes} <- [
            {["--all"], true, false, false},
            {["--prune", "--yes"], false, true, true},
            {["--all", "--prune"], true, true, false}
          ] do
        File.rm(context.request)
        helper(context, [say({:done, 1, {:ok, %{text: "", removed: []}}})])
        assert Volumes.run(arguments) == :ok

        assert {:request, 1, :volumes, %{all: ^all, prune: ^prune, yes: ^yes, volumes: [], package: nil}} =
                 saved_term(context.request)
      end
    end

    test "passes the names of volumes to the helper", context do
      in_a_system(context)
      helper(context, [say({:done, 1, {:ok, %{text: "Removed b", removed: ["b"]}}})])
      assert Volumes.run(["my_system-a", "--prune", "my_system-b"]) == :ok

      assert {:request, 1, :volumes, %{prune: true, volumes: ["my_system-a", "my_system-b"]}} =
               saved_term(context.request)
    end

    test "takes names only with --prune" do
      assert_raise Mix.Error, ~r/names of volumes only with `--prune`: my_system-a$/, fn ->
        Volumes.run(["my_system-a"])
      end

      assert_raise OptionParser.ParseError, fn -> Volumes.run(["--version", "0.1.0"]) end
    end

    test "needs a project, or --all" do
      assert_raise Mix.Error, ~r/no Nerves system here.*--all/s, fn -> Volumes.run([]) end
    end

    test "an error of the helper raises", context do
      in_a_system(context)
      error = %{code: :engine_unreachable, message: "No engine.", hint: "Start one.", log: nil}
      helper(context, [say({:done, 1, {:error, error}})])
      assert_raise Mix.Error, "No engine.\n\nStart one.", fn -> Volumes.run([]) end
    end
  end

  describe "report" do
    test "reports on the latest build of the project without another build", context do
      in_a_system(context)
      helper(context, [say({:done, 1, {:ok, %{text: "my_system 0.1.0: built in 3 s"}}})])
      assert Report.run([]) == :ok
      assert printed() == ["my_system 0.1.0: built in 3 s"]
      assert {:request, 1, :report, args} = saved_term(context.request)
      assert %{package: %{app: :my_system}, where: "", html: "", build: "", json: false, list: false} = args
      assert Application.get_env(:nerves_docker_port, :test_nerves_env) == ["--disable"]
    end

    test "passes options and a directory to the helper, also outside a project", context do
      helper(context, [say({:done, 1, {:ok, %{text: "{}"}}})])
      assert Report.run(~w(--html r.html record --json --list --build ab)) == :ok

      assert {:request, 1, :report,
              %{package: nil, where: "record", html: "r.html", build: "ab", json: true, list: true}} =
               saved_term(context.request)
    end

    test "takes at most one directory" do
      assert_raise Mix.Error, ~r/takes one directory: a b$/, fn -> Report.run(["a", "b"]) end
      assert_raise OptionParser.ParseError, fn -> Report.run(["--yaml"]) end
    end
  end

  test "mix help describes the tasks" do
    for task <- [Doctor, Report, Volumes] do
      assert Mix.Task.shortdoc(task) =~ ~r/^(Finds|Lists|Says) .{20,60}$/
      assert Mix.Task.moduledoc(task) =~ "## Options"
    end
  end

  describe "run, make and copy" do
    setup %{directory: directory} do
      cwd = File.cwd!()
      File.cd!(directory)
      on_exit(fn -> File.cd!(cwd) end)
    end

    test "the command is passed on unchanged, and Mix ends with its exit status", context do
      in_a_system(context)

      for {arguments, command} <- [
            {["--", "sh", "-c", "exit 3", "--get", "x"], ["sh", "-c", "exit 3", "--get", "x"]},
            {["make", "-n", "--", "all"], ["make", "-n", "--", "all"]}
          ] do
        helper(context, [say({:done, 1, {:ok, %{status: 3}}})])
        assert catch_exit(Run.run(arguments)) == {:shutdown, 3}
        assert {:request, 1, :run, args} = saved_term(context.request)
        assert %{command: ^command, package: %{app: :my_system}} = args
        File.rm!(context.request)
      end
    end

    test "make runs the command make", context do
      in_a_system(context)
      helper(context, [say({:done, 1, {:ok, %{status: 0}}})])
      assert Make.run(["savedefconfig", "V=1"]) == :ok
      assert {:request, 1, :run, %{command: command}} = saved_term(context.request)
      assert command == ["make", "savedefconfig", "V=1"]
      File.rm!(context.request)
      assert Make.run(["--", "-n", "all"]) == :ok
      assert {:request, 1, :run, %{command: ["make", "-n", "all"]}} = saved_term(context.request)
    end

    test "a path that cannot be copied is refused before the command runs", context do
      in_a_system(context)
      File.mkdir_p!("legal-info/old")
      helper(context, [])

      assert_raise Mix.Error, ~r/legal-info is a directory with files in it already/, fn ->
        Make.run(["legal-info", "--get", "legal-info/"])
      end

      for path <- ["", ".", "..", "a/..", "/"] do
        assert_raise Mix.Error, ~r/--get takes the path/, fn -> Run.run(["--get", path, "true"]) end
      end

      refute File.exists?(context.request)
    end

    test "nothing is copied after a command that failed", context do
      in_a_system(context)
      helper(context, [say({:done, 1, {:ok, %{status: 1}}})])
      assert catch_exit(Run.run(["--get", "images", "--", "false"])) == {:shutdown, 1}
      assert {:request, 1, :run, _args} = saved_term(context.request)
    end

    test "the target of a copy is relative to the working directory", context do
      in_a_system(context)

      for {target, absolute} <- [
            {"linux.config", "linux.config"},
            {"out/", "out/"},
            {"sub/../x", "x"}
          ] do
        path = Path.join(context.directory, "copied")
        helper(context, [say({:done, 1, {:ok, %{path: path, size: 3}}})])
        assert Copy.run(["build/linux/.config", target]) == :ok
        assert {:request, 1, :copy, args} = saved_term(context.request)
        assert args.source == "build/linux/.config"
        assert args.target == File.cwd!() <> "/" <> absolute
        assert printed() == ["Copied build/linux/.config to #{path}"]
        File.rm!(context.request)
      end
    end

    test "print their usage if the arguments are wrong", context do
      in_a_system(context)
      assert_raise Mix.Error, ~r/takes a command/, fn -> Run.run([]) end
      assert_raise Mix.Error, ~r/takes a target/, fn -> Make.run(["--get", "images"]) end
      assert_raise Mix.Error, ~r/takes a path in the build directory/, fn -> Copy.run(["images"]) end
      assert_raise OptionParser.ParseError, fn -> Run.run(["--fetch", "x", "true"]) end
      assert_raise OptionParser.ParseError, fn -> Make.run(["all", "-j2"]) end
    end

    test "need a Nerves system", context do
      helper(context, [])
      assert_raise Mix.Error, ~r/There is no Nerves system here/, fn -> Run.run(["true"]) end
      assert_raise Mix.Error, ~r/There is no Nerves system here/, fn -> Copy.run(["a", "b"]) end
    end
  end
end
