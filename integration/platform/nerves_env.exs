# Nerves evaluates this file after the artifact was built (Nerves.Env.bootstrap/0), to tell a firmware project its paths.
system = System.get_env("NERVES_SYSTEM")

if system do
  System.put_env("NERVES_SDK_IMAGES", Path.join(system, "images"))
  System.put_env("NERVES_SDK_SYSROOT", Path.join(system, "staging"))
end
