# Nerves evaluates this once the artifact is there (Nerves.Env.bootstrap/0): it tells a firmware project where things are.
system = System.get_env("NERVES_SYSTEM")

if system do
  System.put_env("NERVES_SDK_IMAGES", Path.join(system, "images"))
  System.put_env("NERVES_SDK_SYSROOT", Path.join(system, "staging"))
end
