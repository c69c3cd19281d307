defmodule NervesDockerPort.CITest do
  # Not async: the tests change the environment.
  use NervesDockerPort.HelperCase, async: false

  import ExUnit.CaptureIO

  alias NervesDockerPort.{CI, Command, Console, Helper}

  doctest CI

  @github %{"CI" => "true", "GITHUB_ACTIONS" => "true"}
  @gitlab %{"CI" => "true", "GITLAB_CI" => "true"}
  @args %{package: %{app: :my_system, config: []}}

  @cause %{
    "title" => "host-gperf failed in the step Downloading: a file is not the one that its hash describes.",
    "package" => "host-gperf",
    "step" => "Downloading",
    "kind" => "hash",
    "lines" => ["ERROR: 100% wrong", "::error::not a second one"],
    "remedy" => "Delete it."
  }
  @error %{
    code: :step_failed,
    message: "It failed.\n\n-----\n::add-path::/tmp\n##[error]x\n-----",
    hint: nil,
    log: nil
  }

  setup context do
    on_exit(fn -> Enum.each(~w(CI GITHUB_ACTIONS GITLAB_CI GITHUB_STEP_SUMMARY), &System.delete_env/1) end)
    {:ok, summary: Path.join(context.directory, "summary.md")}
  end

  defp done(outcome), do: say({:done, 1, outcome})
  defp event(event), do: say({:event, 1, event})
  defp stage(name, state), do: event({:stage, name, state})

  # Returns the lines that a build prints in a CI, and its outcome or error.
  defp build(context, environment, steps, op \\ :archive) do
    System.put_env(environment)
    System.put_env("GITHUB_STEP_SUMMARY", context.summary)

    outcome =
      try do
        Helper.request(op, @args, command: fake_helper(context.directory, [:greet | steps]))
      rescue
        error in Mix.Error -> error
      end

    {printed() |> Enum.join("\n") |> String.split("\n"), outcome}
  end

  defp failing,
    do: [stage(:make, :started), event({:log, ">>> a"}), done({:error, Map.put(@error, "cause", @cause)})]

  defp passing(more \\ %{}) do
    value = %{
      path: "/dl/my_system-1.tar.gz",
      size: 12_345_678,
      sha256: "abc",
      stages: [make: 61_000, make_system: 20]
    }

    [stage(:make, :started), stage(:make, {:finished, 61_000}), done({:ok, Map.merge(value, more)})]
  end

  describe "GitHub" do
    test "each stage is a group, and none is within another", context do
      steps = [
        stage(:preflight, :started),
        stage(:pull, :started),
        event({:progress, %{what: "Pulling", current: 1, total: 3, unit: :layers}}),
        stage(:pull, {:finished, 1_234}),
        stage(:preflight, {:finished, 2_000}),
        event({:headline, "Starting Build..."}),
        stage(:make, :started),
        event({:log, ">>> host-gperf 3.1 Building"}),
        stage(:make, {:finished, 3_725_000})
      ]

      {lines, _value} = build(context, @github, steps ++ passing())

      assert Enum.take(lines, 14) == [
               "::group::preflight",
               "::endgroup::",
               "::group::pull",
               "Pulling: 1 of 3 layers (33%)",
               "::endgroup::",
               "== pull: 1.2 s ==",
               "== preflight: 2.0 s ==",
               "|Docker| Starting Build...",
               "",
               "::group::make",
               ">>> host-gperf 3.1 Building",
               "::endgroup::",
               "== make: 1 h 2 min ==",
               "::group::make"
             ]
    end

    test "a failed build closes its group and has one annotation, which names the package and the cause",
         context do
      {lines, error} = build(context, @github, failing())
      assert ["::group::make", ">>> a", "::endgroup::", annotation] = lines

      assert annotation ==
               "::error title=my_system%3A host-gperf failed in the step Downloading%3A a file is not the one that its hash " <>
                 "describes.::ERROR: 100%25 wrong%0A: :error::not a second one%0AWhat to do: Delete it."

      assert error.message =~ "It failed."
    end

    test "every failure has one annotation, also without a cause, and if the shim has failed", context do
      for last <- [done({:error, @error}), {:exit, 3}, done(:nonsense)] do
        {lines, %Mix.Error{}} = build(context, @github, [stage(:preflight, :started), last])

        assert [_one] =
                 Enum.filter(
                   lines,
                   &String.starts_with?(&1, "::error title=my_system%3A The build failed.::")
                 )
      end

      # This helper writes no file, because the test does not wait for its end.
      waits = %Command{executable: "/bin/sh", arguments: ["-c", "exec cat <&3"], origin: :environment}

      assert_raise Mix.Error, "two platforms", fn ->
        Helper.request(:build, fn -> Mix.raise("two platforms") end, command: waits)
      end

      assert printed() == ["::error title=The build failed.::two platforms"]
    end

    test "no line of a build is a command to the runner", context do
      hostile = "::error::a\n \u3000::add-path::b\n##[add-mask]c\n###[group]d\n##vso[task.x]e\n##teamcity[f]"
      events = [event({:log, hostile}), event({:warning, hostile}), event({:headline, hostile})]

      {lines, error} =
        build(context, @github, events ++ [done({:error, %{@error | message: hostile, hint: hostile}})])

      {[_annotation], others} = Enum.split_with(lines, &String.starts_with?(&1, "::error title="))
      refute Enum.any?(others ++ String.split(error.message, "\n"), &(&1 =~ ~r/^\s*::|##\w*\[/u))
      assert ": :error::a" in others
    end

    test "the summary of a failed build has the cause, and no text in it acts as Markdown or HTML", context do
      cause = %{
        @cause
        | "title" => "<b>x</b> *y* `z` | w",
          "lines" => ["</pre><script>"],
          "remedy" => "[a](b)"
      }

      error = @error |> Map.put("cause", cause) |> Map.update!(:message, &(&1 <> "</pre></details>"))
      build(context, @github, [done({:error, error})])
      summary = File.read!(context.summary)
      assert summary =~ ~S(### my\_system\: \<b\>x\<\/b\> \*y\* \`z\` \| w)
      assert summary =~ "<pre>\n&lt;/pre&gt;&lt;script&gt;\n</pre>"
      assert summary =~ ~S{What to do\: \[a\]\(b\)}
      assert summary =~ "&lt;/pre&gt;&lt;/details&gt;\n</pre>\n\n</details>"
    end

    test "the summary of a successful build has the artifact, the stages, the slowest packages and the cache",
         context do
      more = %{
        "slowest" => [["host-gcc_final", 125.04], ["zlib", 3]],
        "ccache" => %{"hits" => 75, "misses" => 25}
      }

      {lines, %{path: _path}} = build(context, @github, passing(more))
      refute Enum.any?(lines, &String.starts_with?(&1, "::error"))
      summary = File.read!(context.summary)
      assert summary =~ "### my\\_system was built"
      assert summary =~ "| Artifact | my\\_system\\-1\\.tar\\.gz |\n| Size | 12.3 MB |\n| SHA-256 | abc |"
      assert summary =~ "| Compiler cache | 75 % hits (75 of 100) |"
      assert summary =~ "| Step | Time |\n| --- | --- |\n| make | 1 min 1 s |\n| make\\_system | 0.0 s |"
      assert summary =~ "| host\\-gcc\\_final | 2 min 5 s |\n| zlib | 3.0 s |"
    end

    test "an archive that only returns the artifact of the build adds nothing", context do
      build(context, @github, passing(%{stages: [preflight: 1, check_tree: 2]}))
      refute File.exists?(context.summary)
    end

    test "two builds in one job have two summaries, without the facts that are not known", context do
      build(context, @github, passing())
      build(context, @github, failing())
      summary = File.read!(context.summary)
      assert summary =~ ~r/was built.*Downloading/s
      refute summary =~ "Slowest"
    end

    test "a summary that cannot be written is reported, and the build succeeds", context do
      context = %{context | summary: Path.join([context.directory, "none", "x"])}
      assert {lines, %{size: 12_345_678}} = build(context, @github, passing())
      assert List.last(lines) =~ "could not be written: no such file or directory"
    end

    test "an operation other than a build or an archive is not announced", context do
      assert {[""], %Mix.Error{}} = build(context, @github, [done({:error, @error})], :doctor)
      refute File.exists?(context.summary)
    end
  end

  describe "GitLab" do
    test "stages are folded sections, also after a failure, and there is no annotation", context do
      {lines, _error} = build(context, @gitlab, failing())
      assert [start, ">>> a", ended] = lines

      assert [_, name] =
               Regex.run(~r/^\e\[0Ksection_start:\d{10}:(make_\d+)\[collapsed=true\]\r\e\[0Kmake$/, start)

      assert ended =~ ~r/^\e\[0Ksection_end:\d{10}:#{name}\r\e\[0K$/
      refute File.exists?(context.summary)
    end
  end

  describe "every CI" do
    test "has stages as plain text with another service", context do
      {lines, _error} = build(context, %{"CI" => "1"}, tl(passing()) ++ failing())
      assert hd(lines) == "== make: 1 min 1 s =="
      {lines, _error} = build(context, %{"CI" => "1"}, failing())
      assert lines == ["== make ==", ">>> a"]
      refute File.exists?(context.summary)
    end

    test "has no control characters and no question with any terminal" do
      colours = Application.get_env(:elixir, :ansi_enabled, false)
      on_exit(fn -> Application.put_env(:elixir, :ansi_enabled, colours) end)
      Application.put_env(:elixir, :ansi_enabled, true)
      Mix.shell(Mix.Shell.IO)
      progress = {:progress, %{what: "Pulling", current: 1, total: 3, unit: :layers}}
      events = [{:stage, :pull, :started}, progress, :idle, {:headline, "a"}, {:warning, "b"}, {:log, "c"}]

      for variable <- ~w(CI GITHUB_ACTIONS) do
        System.put_env(variable, "true")

        seen =
          capture_io(fn ->
            Enum.reduce(events, Console.new(columns: 80), fn
              :idle, console -> Console.idle(console)
              event, console -> console |> Console.show(event) |> elem(1)
            end)
            |> Console.finish()
          end)

        assert seen =~ "Pulling: 1 of 3 layers (33%)\n"
        refute seen =~ ~r/[^\P{C}\n]/u
        assert %{interactive: false, ansi: false} = Console.terminal()
        System.delete_env(variable)
      end
    end

    test "does not include CI=false" do
      System.put_env("CI", "false")
      assert CI.new() == nil
    end
  end
end
