defmodule NervesDockerPort.HelperTest do
  # Not async: the tests change Mix's shell, the environment and the application's configuration.
  use NervesDockerPort.HelperCase, async: false

  import ExUnit.CaptureIO

  alias NervesDockerPort.{Command, Helper}

  doctest Helper

  defmodule ThoughtfulShell do
    # A user who needs some time to answer.
    def yes?(_text, _options) do
      Process.sleep(500)
      true
    end
  end

  @args %{package: %{app: :my_system, config: [a: ~c"charlist"]}}

  defp done(value \\ %{}), do: say({:done, 1, {:ok, value}})
  defp event(event), do: say({:event, 1, event})

  defp request(directory, steps, options \\ []) do
    Helper.request(:archive, @args, [command: fake_helper(directory, steps)] ++ options)
  end

  defp error(directory, steps, options \\ []) do
    assert_raise(Mix.Error, fn -> request(directory, steps, options) end).message
  end

  describe "a conversation" do
    test "sends the request after the hello, and returns the value of the outcome", %{
      directory: directory
    } do
      sent = Path.join(directory, "sent")

      assert request(directory, [say(hello()), {:read, sent}, done(%{path: "/dl/a", size: 3})]) ==
               %{path: "/dl/a", size: 3}

      assert saved_term(sent) == {:request, 1, :archive, @args}
    end

    test "returns the values nil and false", %{directory: directory} do
      assert request(directory, [:greet, done(nil)]) == nil
      assert request(directory, [:greet, done(false)]) == false
    end

    test "shows events in their order with Mix's shell", %{directory: directory} do
      request(directory, [
        :greet,
        event({:stage, :make, :started}),
        event({:headline, "Starting Build... (this may take a while)"}),
        event({:log, ">>> one\n>>> two"}),
        event({:warning, "little memory"}),
        event({:progress, %{what: "Pulling", current: 1, total: 3, unit: :layers}}),
        event({:log, <<">>> caf", 0xE9>>}),
        event({:stage, :make, {:finished, 12}}),
        done()
      ])

      assert printed() == [
               "|Docker| Starting Build... (this may take a while)",
               "",
               ">>> one\n>>> two",
               "little memory",
               ">>> caf\uFFFD",
               "Pulling: 1 of 3 layers (33%)"
             ]
    end

    test "asks the user questions, with the default", %{directory: directory} do
      [first, second] = Enum.map(["first", "second"], &Path.join(directory, &1))
      send(self(), {:mix_shell_input, :yes?, true})
      send(self(), {:mix_shell_input, :yes?, false})

      request(directory, [
        :greet,
        say({:ask, 1, 5, {:yes_no, "Build it?", true}}),
        {:read, first},
        say({:ask, 1, 6, {:yes_no, "Sure?", false}}),
        {:read, second},
        done()
      ])

      assert saved_term(first) == {:answer, 5, true}
      assert saved_term(second) == {:answer, 6, false}
      assert_received {:mix_shell, :yes?, ["Build it?"]}
      assert_received {:mix_shell, :yes?, ["Sure?"]}
    end

    test "uses the helper's default if the user only presses enter", %{
      directory: directory
    } do
      Mix.shell(Mix.Shell.IO)

      for {default, prompt} <- [{true, "[Yn]"}, {false, "[yN]"}] do
        answer = Path.join(directory, "answer-#{default}")

        steps = [
          :greet,
          say({:ask, 1, 1, {:yes_no, "Go on?", default}}),
          {:read, answer},
          done()
        ]

        assert capture_io("\n", fn -> request(directory, steps) end) =~ "Go on? " <> prompt
        assert saved_term(answer) == {:answer, 1, default}
      end
    end

    test "leaves no message in the caller's mailbox and no link", %{directory: directory} do
      Process.flag(:trap_exit, true)
      send(self(), :before)
      links = Process.info(self(), :links)

      request(directory, [:greet, event({:log, ">>> a"}), done(), event({:log, ">>> late"})])

      error(directory, [:greet, {:exit, 3}])

      assert [">>> a"] = printed()
      assert Process.info(self(), :messages) == {:messages, [:before]}
      assert Process.info(self(), :links) == links
      assert Process.info(self(), :monitors) == {:monitors, []}
    end

    test "is not disturbed by output of the helper", %{directory: directory} do
      steps = [
        {:print, "to standard output, before"},
        :greet,
        {:stderr, "to standard error"},
        {:print, "to standard output"},
        done(%{path: "/p"})
      ]

      assert request(directory, steps) == %{path: "/p"}
      assert File.read!(Path.join(directory, "stdout")) =~ "to standard output\n"
      assert File.read!(Path.join(directory, "stderr")) == "to standard error\n"
    end

    test "reads a frame of 8 MB, and a frame that arrives in pieces", %{directory: directory} do
      text = String.duplicate("a", 8_000_000)
      assert request(directory, [:greet, done(text)]) == text

      bytes = :erlang.term_to_binary({:done, 1, {:ok, "slow"}})
      frame = <<byte_size(bytes)::32, bytes::binary>>

      pieces =
        for <<byte <- frame>>,
            step <- [{:raw, Base.encode64(<<byte>>)}, {:sleep, 0.002}],
            do: step

      assert request(directory, [:greet | pieces]) == "slow"
    end

    test "closes the helper's input when it is done", %{directory: directory} do
      [eof, pid] = Enum.map(["eof", "pid"], &Path.join(directory, &1))
      request(directory, [{:pid, pid}, say(hello()), done(), {:wait_for_eof, eof}])
      assert await_file(eof) == "end of input"
      os_pid = await_file(pid)
      await("the helper to go", fn -> not os_process_alive?(os_pid) end)
    end

    test "starts the helper with the operation port", %{directory: directory} do
      argv = Path.join(directory, "argv")
      request(directory, [{:argv, argv}, :greet, done()])
      assert await_file(argv) == ~s(["port"])
    end
  end

  describe "after a build" do
    defp steps(directory) do
      [
        {:pid, Path.join(directory, "pid")},
        :greet,
        say({:done, 1, {:ok, %{path: "/dl/built"}}}),
        {:read, Path.join(directory, "second")},
        say({:event, 2, {:headline, "Packing"}}),
        say({:done, 2, {:ok, %{path: "/dl/packed"}}}),
        {:wait_for_eof, Path.join(directory, "eof")}
      ]
    end

    defp archive(command), do: Helper.request(:archive, @args, command: command)

    test "the same helper serves the next request, and then ends", %{directory: directory} do
      command = fake_helper(directory, steps(directory))
      assert Helper.request(:build, @args, command: command) == %{path: "/dl/built"}
      refute File.exists?(Path.join(directory, "eof"))

      # Nerves sets this variable for the compilation that follows.
      System.put_env("NERVES_SYSTEM", directory)
      on_exit(fn -> System.delete_env("NERVES_SYSTEM") end)

      assert archive(command) == %{path: "/dl/packed"}
      assert saved_term(Path.join(directory, "second")) == {:request, 2, :archive, @args}
      assert printed() == ["|Docker| Packing", ""]
      assert await_file(Path.join(directory, "eof")) == "end of input"
    end

    test "the helper ends by itself if no request comes", %{directory: directory} do
      pid = Path.join(directory, "pid")
      command = fake_helper(directory, steps(directory))
      Helper.request(:build, @args, command: command, park_timeout: 50)
      await("the helper to go", fn -> not os_process_alive?(await_file(pid)) end)

      command = fake_helper(directory, [:greet, done(%{path: "/dl/packed anew"})])
      assert archive(command) == %{path: "/dl/packed anew"}
    end

    test "the helper ends with the process that has asked for the build", %{directory: directory} do
      command = fake_helper(directory, steps(directory))
      task = Task.async(fn -> Helper.request(:build, @args, command: command) end)
      Task.await(task)
      pid = await_file(Path.join(directory, "pid"))
      await("the helper to go", fn -> not os_process_alive?(pid) end)
    end

    test "a helper that has died in the meantime is replaced", %{directory: directory} do
      pid = Path.join(directory, "pid")
      command = fake_helper(directory, steps(directory))
      Helper.request(:build, @args, command: command)
      {_, 0} = System.cmd("kill", ["-KILL", await_file(pid)])
      await("the helper to go", fn -> not os_process_alive?(await_file(pid)) end)
      # The operating system knows the end of a process a moment earlier than the BEAM.
      {%{connection: connection}, _engine} = Process.get(Helper)
      await("the end to be known", fn -> :sys.get_state(connection).ended != nil end)

      ^command = fake_helper(directory, [:greet, done(%{path: "/dl/packed anew"})])
      assert archive(command) == %{path: "/dl/packed anew"}
    end

    test "a helper that was started for another engine is replaced", %{directory: directory} do
      System.put_env("DOCKER_HOST", "unix:///one.sock")
      on_exit(fn -> System.delete_env("DOCKER_HOST") end)
      command = fake_helper(directory, steps(directory))
      Helper.request(:build, @args, command: command)

      System.put_env("DOCKER_HOST", "unix:///another.sock")
      ^command = fake_helper(directory, [:greet, done(%{path: "/dl/packed anew"})])
      assert archive(command) == %{path: "/dl/packed anew"}
      pid = await_file(Path.join(directory, "pid"))
      await("the first helper to go", fn -> not os_process_alive?(pid) end)
    end

    test "that has failed, the helper ends", %{directory: directory} do
      error = %{code: :step_failed, message: "`make` ended", hint: nil, log: nil}

      steps = [
        :greet,
        say({:done, 1, {:error, error}}),
        {:wait_for_eof, Path.join(directory, "eof")}
      ]

      error(directory, steps)
      assert await_file(Path.join(directory, "eof")) == "end of input"
    end
  end

  describe "arguments that have to be made" do
    test "are made while the helper starts", %{directory: directory} do
      pid = Path.join(directory, "pid")
      sent = Path.join(directory, "sent")
      steps = [{:pid, pid}, say(hello()), {:read, sent}, done()]

      Helper.request(:clean, fn -> Map.put(@args, :pid, await_file(pid)) end,
        command: fake_helper(directory, steps)
      )

      assert {:request, 1, :clean, %{pid: _}} = saved_term(sent)
    end

    test "and cannot be made are an error, and the helper ends", %{directory: directory} do
      steps = [
        {:pid, Path.join(directory, "pid")},
        say(hello()),
        {:wait_for_eof, Path.join(directory, "eof")}
      ]

      assert_raise Mix.Error, "Set HOME.", fn ->
        Helper.request(:clean, fn -> Mix.raise("Set HOME.") end, command: fake_helper(directory, steps))
      end

      pid = await_file(Path.join(directory, "pid"))
      await("the helper to go", fn -> not os_process_alive?(pid) end)
    end
  end

  describe "silence" do
    test "gets a dot, and the line of dots ends before the next line is printed", %{directory: directory} do
      Mix.shell(Mix.Shell.IO)

      output =
        capture_io(fn ->
          steps = [
            :greet,
            event({:log, ">>> a"}),
            {:sleep, 2.5},
            event({:log, ">>> b"}),
            done()
          ]

          request(directory, steps, dot_every: 1_000)
        end)

      assert output =~ ~r/^>>> a\n\.+\n>>> b\n$/
    end

    test "is not ended by events that print nothing", %{directory: directory} do
      Mix.shell(Mix.Shell.IO)
      quiet = Enum.flat_map(1..8, fn _ -> [event({:stage, :make, :started}), {:sleep, 0.1}] end)

      output =
        capture_io(fn ->
          request(directory, [:greet] ++ quiet ++ [done()], dot_every: 250)
        end)

      assert output =~ ~r/^\.+\n$/
    end

    test "gets no dot with another Mix shell than that of the terminal", %{directory: directory} do
      for shell <- [Mix.Shell.Quiet, Mix.Shell.Process] do
        Mix.shell(shell)

        assert capture_io(fn ->
                 steps = [:greet, event({:headline, "x"}), {:sleep, 0.3}, done()]
                 request(directory, steps, dot_every: 50)
               end) == ""
      end
    end
  end

  describe "an error of the helper" do
    test "is raised with its message and its hint", %{directory: directory} do
      error = %{
        code: :step_failed,
        message: "make ended with 2.\n",
        hint: "Look there.",
        log: "/build.log"
      }

      assert error(directory, [:greet, say({:done, 1, {:error, error}})]) ==
               "make ended with 2.\n\nLook there."
    end

    test "is raised unchanged if there is no hint", %{directory: directory} do
      error = %{code: :internal, message: "Oh.", hint: nil, log: nil}
      assert error(directory, [:greet, say({:done, 1, {:error, error}})]) == "Oh."
    end

    test "about a request that it could not read has the id 0", %{directory: directory} do
      error = %{code: :bad_request, message: "The frame is too large.", hint: nil, log: nil}

      assert error(directory, [:greet, say({:done, 0, {:error, error}})]) ==
               "The frame is too large."
    end

    test "ends the line of dots", %{directory: directory} do
      Mix.shell(Mix.Shell.IO)
      error = %{code: :internal, message: "Oh.", hint: nil, log: nil}
      steps = [:greet, {:sleep, 1}, say({:done, 1, {:error, error}})]

      assert capture_io(fn -> assert error(directory, steps, dot_every: 200) == "Oh." end) =~
               ~r/^\.+\n$/
    end
  end

  describe "a helper that breaks the protocol" do
    test "by a newer version: the error says to update the Mix side", %{directory: directory} do
      message = error(directory, [say(hello(%{protocol: 2, version: "9.0.0"}))])
      assert message =~ "speaks version 2 of the port protocol, and the Mix side version 1"
      assert message =~ "mix deps.update nerves_docker_port"
      assert message =~ ~s(helper "9.0.0")
    end

    test "by an older version: the error says to update the helper", %{directory: directory} do
      message = error(directory, [say(hello(%{protocol: 0}))])
      assert message =~ "The helper is the older one"
      assert message =~ "unset NERVES_DOCKER_PORT_COMMAND"

      # Nobody has published a package of that name. A stranger could publish one, and its code would then run here.
      refute message =~ "pip install"
    end

    test "of another release with the same protocol: a warning that says what to do", %{directory: directory} do
      command = fake_helper(directory, [say(hello(%{version: "9.0.0"})), {:read, nil}, done()])

      for {command, remedy} <- [
            {command, "unset NERVES_DOCKER_PORT_COMMAND"},
            {%{command | origin: :config}, "config :nerves_docker_port, command:"},
            {%{command | origin: :packaged}, "make -C"}
          ] do
        assert Helper.request(:build, %{}, command: command, park_timeout: 0) == %{}
        assert [warning | _rest] = printed()
        assert warning =~ ~s(helper is release "9.0.0")
        assert warning =~ ~s(the Mix side release "#{NervesDockerPort.version()}")
        assert warning =~ remedy
      end
    end

    test "sends another message before the hello", %{directory: directory} do
      for steps <- [[done()], [say({:hello, []})], [say("hello")], [say_bytes("")]] do
        message = error(directory, steps)
        assert message =~ "did not say hello"
        assert message =~ "fake_helper.py"
        assert message =~ "NERVES_DOCKER_PORT_COMMAND"
      end
    end

    test "sends no hello", %{directory: directory} do
      pid = Path.join(directory, "pid")

      message =
        error(directory, [{:pid, pid}, {:wait_for_eof, Path.join(directory, "eof")}], hello_timeout: 500)

      assert message =~ "did not say hello within 0.5 s"
      os_pid = await_file(pid)
      await("the helper to go", fn -> not os_process_alive?(os_pid) end)
    end

    test "sends bytes that are no term", %{directory: directory} do
      for bytes <- [
            "",
            "Traceback (most recent call last):",
            <<131>>,
            <<131, 104, 2, 97>>,
            <<131, 255, 0>>
          ] do
        assert error(directory, [:greet, say_bytes(bytes), done()]) =~
                 "bytes that are no term"
      end
    end

    test "sends bytes after a term", %{directory: directory} do
      bytes = :erlang.term_to_binary({:done, 1, {:ok, 1}}) <> <<0, 0>>
      assert error(directory, [:greet, say_bytes(bytes)]) =~ "2 bytes too many after a term"
    end

    test "sends a compressed term", %{directory: directory} do
      bytes = :erlang.term_to_binary(String.duplicate("a", 1000), [:compressed])
      assert error(directory, [:greet, say_bytes(bytes)]) =~ "a compressed term"
    end

    test "sends a frame over the limit", %{directory: directory} do
      # The helper makes the frame, because base64 of 16 MiB in JSON would be slow.
      bytes = :binary.copy("a", 16 * 1024 * 1024 + 1)

      assert error(directory, [:greet, say_bytes(bytes)]) =~
               "a frame of 16777217 bytes, where 16777216"
    end

    test "sends half a frame and dies", %{directory: directory} do
      message = error(directory, [:greet, {:raw, Base.encode64(<<100::32, "half">>)}, {:exit, 1}])

      assert message =~ "The helper died before it was done (exit status 1)"
    end

    test "writes text instead of frames", %{directory: directory} do
      # The port reads "Trac" as a length of 1.4 GB, and waits for that many bytes.
      message = error(directory, [{:raw, Base.encode64("Traceback (most recent call last):")}, {:exit, 1}])

      assert message =~ "ended before it said hello (exit status 1)"
    end

    test "sends an atom that is not in the vocabulary: no atom is made", %{directory: directory} do
      name = "never_seen_#{System.unique_integer([:positive])}"
      atom = <<119, byte_size(name), name::binary>>
      bytes = <<131, 104, 3, 119, 5, "event", 97, 1, atom::binary>>

      assert error(directory, [:greet, say_bytes(bytes), done()]) =~
               "an atom outside the protocol's vocabulary"

      assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
    end

    test "sends an unknown message", %{directory: directory} do
      unknown = [
        :hello,
        {:event, 1, {:headline, 5}},
        {:event, 1, {:stage, "make", :started}},
        {:event, 1, :log},
        {:event, 2, {:headline, "of another request"}},
        {:ask, 1, 1, {:yes_no, "?", nil}},
        {:done, 2, {:ok, 1}},
        {:done, 1, :ok},
        {:done, 1, {:error, %{code: :internal}}},
        {:done, 1, {:error, "no map"}}
      ]

      for message <- unknown do
        assert error(directory, [:greet, say(message), done()]) =~
                 "what this version does not know: "
      end
    end
  end

  describe "a helper that dies" do
    test "before its hello: the error names the command and its requirements", %{directory: directory} do
      command = %{
        fake_helper(directory, [{:stderr, "no module"}, {:exit, 1}])
        | origin: :packaged
      }

      message = assert_raise(Mix.Error, fn -> Helper.request(:build, @args, command: command) end).message

      assert message =~ "ended before it said hello (exit status 1)"
      assert message =~ "fake_helper.py"
      assert message =~ "apt-get install python3"
      assert message =~ "brew install python"
    end

    test "because Python is too old", %{directory: directory} do
      message = error(directory, [{:stderr, "too old"}, {:exit, 78}])
      assert message =~ "is older than Python 3.10"
      assert message =~ "apt-get install python3"
    end

    test "in the middle of a build", %{directory: directory} do
      steps = [:greet, event({:headline, "Starting"}), {:exit, 70}]
      assert error(directory, steps) =~ "The helper died before it was done (exit status 70)"
      assert ["|Docker| Starting", ""] = printed()
    end

    test "of a Python error: the error does not mention memory", %{directory: directory} do
      message = error(directory, [:greet, {:exit, 1}])
      assert message =~ "It failed with a Python error: the last line that it printed above says which."
      refute message =~ "memory"
    end

    test "of a signal", %{directory: directory} do
      message = error(directory, [:greet, {:kill, 9}])
      assert message =~ "exit status 137: signal 9"
      assert message =~ "PARALLEL_JOBS"
      refute error(directory, [:greet, {:kill, 11}]) =~ "memory"
    end

    test "with status 0, but without an outcome", %{directory: directory} do
      assert error(directory, [:greet, {:exit, 0}]) =~
               "died before it was done (exit status 0)"
    end

    test "while a question is open", %{directory: directory} do
      Mix.shell(ThoughtfulShell)
      steps = [:greet, say({:ask, 1, 1, {:yes_no, "?", true}}), {:exit, 4}]
      assert error(directory, steps) =~ "exit status 4"
    end

    test "while a message is sent to it does not end the caller", %{directory: directory} do
      # The process runs, but its input is closed, so a write ends the port at once.
      steps = [{:close_input, nil}, say(hello()), {:sleep, 0.5}]
      assert error(directory, steps) =~ "The helper died before it was done"
    end
  end

  describe "a caller that dies" do
    test "makes the helper end", %{directory: directory} do
      [eof, pid] = Enum.map(["eof", "pid"], &Path.join(directory, &1))
      command = fake_helper(directory, [:greet, {:pid, pid}, {:wait_for_eof, eof}])

      for reason <- [:kill, :shutdown] do
        caller = spawn(fn -> Helper.request(:build, @args, command: command) end)
        os_pid = await_file(pid)
        assert os_process_alive?(os_pid)

        Process.exit(caller, reason)
        assert await_file(eof) == "end of input"
        await("the helper to go", fn -> not os_process_alive?(os_pid) end)
        Enum.each([eof, pid], &File.rm!/1)
      end
    end

    test "by an exception in the shell makes the helper end", %{directory: directory} do
      pid = Path.join(directory, "pid")
      # Mix.Shell.Process raises if the test has sent no answer.
      steps = [
        :greet,
        {:pid, pid},
        say({:ask, 1, 1, {:yes_no, "?", true}}),
        {:sleep, 0.1},
        done()
      ]

      assert_raise RuntimeError, fn -> request(directory, steps) end
      os_pid = await_file(pid)
      await("the helper to go", fn -> not os_process_alive?(os_pid) end)
    end
  end

  describe "the program" do
    test "that cannot be run is named", %{directory: directory} do
      path = Path.join(directory, "not_executable")
      File.write!(path, "")
      command = %Command{executable: path, arguments: ["port"], origin: :environment}

      message = assert_raise(Mix.Error, fn -> Helper.request(:build, @args, command: command) end).message

      assert message =~ "cannot be started: permission denied"
      assert message =~ path
    end

    test "may have a name with spaces, quotes and any letters", %{directory: directory} do
      strange = Path.join(directory, "a b'c\"d$e,é")
      File.mkdir_p!(strange)

      assert Helper.request(:build, @args, command: fake_helper(strange, [:greet, done(1)])) ==
               1
    end
  end
end
