// Replacing a web app's settings replaces all of them: hence those that are there are handed in.
targetScope = 'resourceGroup'

@description('The web app')
param siteName string

@description('All settings the app has now')
@secure()
param present object

@description('Settings that join them, or take their place')
param added object

resource site 'Microsoft.Web/sites@2024-11-01' existing = {
  name: siteName
}

resource settings 'Microsoft.Web/sites/config@2024-11-01' = {
  parent: site
  name: 'appsettings'
  properties: union(present, added)
}
